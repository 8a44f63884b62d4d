"""Tensors as the protocol sends them: in JSON, or as bytes behind it (the binary tensor data extension)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Datatype = Literal["BYTES", "FP32", "INT32"]
LENGTH = struct.Struct("<I")
"""Before each element of a BYTES tensor."""
_PACKED = {"FP32": "f", "INT32": "i"}


class TensorError(ValueError):
    """The bytes are not those of the tensor that was announced."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; its values in a row, the last axis running fastest."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    values: Sequence[Any]
    """As many as the shape says: numbers, or texts for BYTES."""

    def document(self, *, num_bytes: int | None = None) -> dict[str, Any]:
        """Return what the JSON says: with the values, or with how many bytes of them stand behind it."""
        told = {"name": self.name, "shape": self.shape, "datatype": self.datatype}
        if num_bytes is None:
            return {**told, "data": self.values}
        return {**told, "parameters": {"binary_data_size": num_bytes}}

    def packed(self) -> bytes:
        """Return the values as bytes: little-endian, texts with their length before them."""
        if self.datatype == "BYTES":
            return join_elements(text.encode() for text in self.values)
        return struct.pack(f"<{len(self.values)}{_PACKED[self.datatype]}", *self.values)


def num_elements(shape: Sequence[int]) -> int:
    """Return how many values a shape holds."""
    return math.prod(shape)


def join_elements(elements: Iterable[bytes]) -> bytes:
    """Return a BYTES tensor."""
    return b"".join(part for each in elements for part in (LENGTH.pack(len(each)), each))


def split_elements(content: memoryview, expected: int) -> list[bytes]:
    """Return the elements of a BYTES tensor.

    Raises:
        TensorError: there are more or fewer, or one is cut off.
    """
    found: list[bytes] = []
    at = 0
    while at < len(content):
        if len(found) == expected:
            raise TensorError(f"bytes are left after the {expected} elements of the shape")
        if len(content) - at < LENGTH.size:
            raise TensorError(f"element {len(found)} is cut off within its length")
        (length,) = LENGTH.unpack_from(content, at)
        at += LENGTH.size
        if length > len(content) - at:
            raise TensorError(
                f"element {len(found)} is announced with {length} bytes, and {len(content) - at} are left; "
                "each begins with its length as 4 bytes, little-endian"
            )
        found.append(bytes(content[at : at + length]))
        at += length
    if len(found) != expected:
        raise TensorError(f"{len(found)} elements came, and the shape has {expected}")
    return found
