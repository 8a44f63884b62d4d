"""Read the tensors of a weights file without running anything from it.

What a file is shows in its bytes, not in its name. Whatever is not a plain, whole, reasonably small file of
numbers raises WeightsError.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from detection.data.wording import quoted
from detection.errors import WeightsError

MAX_FILE_BYTES = 2 * 1024**3
"""The largest published checkpoint, YOLOX-x with its optimizer, is 0.8 GB."""
MAX_SAFETENSORS_HEADER = 100_000_000
MOST_TENSORS = 100_000
"""YOLOX-x has a thousand; each costs far more time and memory than its numbers."""


class Forgotten:
    """Stands for a NumPy number, which training scripts leave in checkpoints as best AP or epoch.

    NumPy itself is not let near a file: the state of a `dtype` has flags, and with the right ones a number is
    read from wherever in memory the file says.
    """

    def __init__(self, *_: object) -> None:
        """Take whatever the file gives."""

    def __setstate__(self, _: object) -> None:
        """Keep nothing of it."""


ALLOWED_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (Forgotten, "numpy._core.multiarray.scalar"),
    (Forgotten, "numpy.core.multiarray.scalar"),
    (Forgotten, "numpy.dtype"),
]
"""Beyond torch's own list."""

MALFORMED = (
    UnpicklingError,
    SafetensorError,
    struct.error,
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
    OSError,
)
"""What the readers of torch, safetensors and ONNX raise when bytes are not what they should be."""


class FileKind(StrEnum):
    TORCH = "torch"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"


def file_kind(path: Path) -> FileKind:
    """Return what the first bytes say."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"the file has {size:,} bytes; weights of at most {MAX_FILE_BYTES:,} are read")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):
        return FileKind.TORCH
    if len(head) > 8 and head[8:9] == b"{":
        (header_bytes,) = struct.unpack("<Q", head[:8])
        if header_bytes <= min(size - 8, MAX_SAFETENSORS_HEADER):
            return FileKind.SAFETENSORS
    if head.startswith(b"\x08"):
        return FileKind.ONNX
    raise WeightsError(
        "the file is no torch checkpoint (.pth, .pt, .ckpt), no safetensors file and no ONNX graph"
    )


@contextmanager
def damage_reported(what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn every error of a malformed file, and `also` these, into a WeightsError that says what it was."""
    kinds: tuple[type[Exception], ...] = (*MALFORMED, *also)
    try:
        yield
    except kinds as error:
        raise WeightsError(f"the {what} is damaged or cut off ({type(error).__name__})") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name."""
    with damage_reported("safetensors file"):
        with safe_open(path, framework="pt") as file:
            num_tensors = len(file.keys())
        _refuse_too_many(num_tensors)
        return load_file(path)


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file says about itself, in its header."""
    with damage_reported("safetensors file"), safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return the weights of a torch checkpoint by name: its `model` or `state_dict`, or all of it."""
    with damage_reported("torch checkpoint"):
        if zipfile.is_zipfile(path):
            _refuse_compressed(path)
        content = _load_numbers(path)
    tensors = _find_tensors(content)
    _refuse_too_many(len(tensors))
    _refuse_more_than_the_file(tensors, path.stat().st_size)
    return tensors


def _refuse_compressed(path: Path) -> None:
    """torch never compresses; a file that does can be a thousand times as large in memory."""
    with zipfile.ZipFile(path) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise WeightsError(f"no torch checkpoint: its entry {quoted(packed[0])} is compressed")


def _load_numbers(path: Path) -> object:
    with safe_globals(ALLOWED_GLOBALS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old pickle protocols, which are read all the same
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            names = _unsafe_names(path)
            if not names:
                raise
            raise WeightsError(
                f"the file needs code to be opened ({', '.join(map(quoted, names[:3]))}); only numbers are "
                "read, nothing was run. Save the model's state_dict() alone"
            ) from error


def _unsafe_names(path: Path) -> list[str]:
    try:
        return sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except ValueError:  # an old checkpoint, not a zip: nobody can list its names without running it
        return ["unknown code"]


def _find_tensors(content: object) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for entry in ("model", "state_dict", None):
            candidate = content if entry is None else content.get(entry)
            if isinstance(candidate, Mapping):
                tensors = {str(name): value for name, value in candidate.items() if isinstance(value, Tensor)}
                if tensors:
                    return tensors
    raise WeightsError("the torch checkpoint holds no state_dict: no mapping of names to tensors")


def _refuse_too_many(num_tensors: int) -> None:
    if num_tensors > MOST_TENSORS:
        raise WeightsError(f"the file holds {num_tensors:,} weights; at most {MOST_TENSORS:,} are read")


def _refuse_more_than_the_file(tensors: Mapping[str, Tensor], file_bytes: int) -> None:
    """A tensor may repeat one number a billion times at no cost, until somebody copies it.

    Several tensors may be the same numbers: the two copies of a trainer that has not averaged yet.
    """
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise WeightsError(f"the weight {quoted(name)} is sparse, quantized or without values")
        storage, claims = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        storages[storage.data_ptr()] = max(claims, storages.get(storage.data_ptr(), 0))
    claimed = sum(storages.values())
    if claimed > file_bytes:
        raise WeightsError(f"the file claims weights of {claimed:,} bytes but has only {file_bytes:,}")
