"""Storage in an S3-compatible object store (the extra `s3`); credentials are the usual AWS variables."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from app.storage import checked_key

READ_BYTES = 1 << 20
PART_BYTES = 8 << 20
TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=5)
RETRIES = 4


class S3Storage:
    def __init__(self, address: str) -> None:
        self._store = S3Store.from_url(
            address,
            client_options={
                "timeout": TIMEOUT,
                "connect_timeout": CONNECT_TIMEOUT,
                "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": TIMEOUT},
        )

    def write(self, key: str, content: BinaryIO) -> None:
        start = content.tell()
        size = content.seek(0, os.SEEK_END) - start
        content.seek(start)
        with _os_errors():
            obstore.put(self._store, checked_key(key), content, chunk_size=PART_BYTES)
        if self.size(key) != size:
            self.delete(key)
            raise OSError(f"{key}: the store does not hold what was sent")

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        reader = io.BufferedReader(_ObjectReader(self._store, checked_key(key), self.size(key)), READ_BYTES)
        with reader:
            yield cast(BinaryIO, reader)

    def size(self, key: str) -> int:
        with _os_errors():
            return int(obstore.head(self._store, checked_key(key))["size"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        with _os_errors():  # the store lists whole path segments only
            for page in obstore.list(self._store, folder or None):
                for found in page:
                    if str(found["path"]).startswith(prefix):
                        yield str(found["path"])

    def folders(self, prefix: str) -> list[str]:
        with _os_errors():
            found = obstore.list_with_delimiter(self._store, checked_key(prefix.removesuffix("/")))
        return sorted(str(path).rpartition("/")[2] for path in found["common_prefixes"])

    def delete(self, key: str) -> None:
        with _os_errors():
            obstore.delete(self._store, checked_key(key))

    def delete_all(self, prefix: str) -> None:
        if not prefix.endswith("/"):
            raise ValueError(f"{prefix!r} must end with a slash")
        checked_key(prefix[:-1])
        keys = list(self.keys(prefix))
        if keys:
            with _os_errors():
                obstore.delete(self._store, keys)

    def local_path(self, key: str, cache: Path) -> Path:
        path = cache / checked_key(key)
        if path.is_file() and path.stat().st_size == self.size(key):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        try:
            with self.open(key) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target, READ_BYTES)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def adopt(self, key: str, path: Path) -> None:
        with path.open("rb") as content:
            self.write(key, content)
        path.unlink()

    def check(self) -> None:
        with _os_errors():
            next(iter(obstore.list(self._store, "datasets", chunk_size=1)), None)


class _ObjectReader(io.RawIOBase):
    """An object as a file that can be sought in; every read is a request, so put a buffer around it."""

    def __init__(self, store: S3Store, key: str, size: int) -> None:
        self._store, self._key, self._size = store, key, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        with _os_errors():
            piece = obstore.get_range(self._store, self._key, start=self._at, length=length)
        buffer[:length] = memoryview(piece)
        self._at += length
        return length


@contextmanager
def _os_errors() -> Iterator[None]:
    """Every storage fails the same way: with OSError, of which FileNotFoundError is one."""
    try:
        yield
    except BaseError as error:
        raise OSError(f"the object store refused: {type(error).__name__}") from error
