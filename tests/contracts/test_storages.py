"""Every storage keeps the same promises: whole files or none, ranges, prefixes, plain keys."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from app.settings import Settings
from app.storage import Storage, checked_key, open_storage
from app.storage.filesystem import FilesystemStorage

BIG = os.urandom(3 * 1024 * 1024 + 17)


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        _make_bucket(f"http://{host}:{port}")
        yield "s3://harrier-tests/some/prefix"
    server.stop()


def _make_bucket(endpoint: str) -> None:
    import boto3

    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="harrier-tests")


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "file":
        yield FilesystemStorage(tmp_path / "storage")
        return
    address = request.getfixturevalue("s3_address")
    storage = open_storage(Settings(home=tmp_path, storage_url=address, _env_file=None))
    yield storage
    for folder in ("a", "datasets", "deep"):
        storage.delete_all(f"{folder}/")


def read(storage: Storage, key: str) -> bytes:
    with storage.open(key) as file:
        return file.read()


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one", "big"])
def test_what_was_written_is_read(storage: Storage, content: bytes) -> None:
    storage.write("a/b/file.bin", io.BytesIO(content))
    assert read(storage, "a/b/file.bin") == content
    assert storage.size("a/b/file.bin") == len(content)
    assert storage.exists("a/b/file.bin")


def test_a_write_begins_where_the_reader_stands(storage: Storage) -> None:
    content = io.BytesIO(b"skipped and kept")
    content.seek(12)
    storage.write("a/tail", content)
    assert read(storage, "a/tail") == b"kept"


def test_a_second_write_replaces_the_first(storage: Storage) -> None:
    storage.write("a/key", io.BytesIO(b"first, and longer"))
    storage.write("a/key", io.BytesIO(b"second"))
    assert read(storage, "a/key") == b"second"


def test_a_file_can_be_sought_in(storage: Storage) -> None:
    storage.write("a/big", io.BytesIO(BIG))
    with storage.open("a/big") as file:
        file.seek(2_000_000)
        assert file.read(10) == BIG[2_000_000:2_000_010]
        file.seek(-5, os.SEEK_END)
        assert file.read() == BIG[-5:]
        file.seek(0)
        assert file.read(3) == BIG[:3]
        assert file.tell() == 3


def test_what_is_missing_is_a_file_not_found(storage: Storage, tmp_path: Path) -> None:
    assert not storage.exists("a/nothing")
    with pytest.raises(FileNotFoundError):
        storage.size("a/nothing")
    with pytest.raises(FileNotFoundError):
        read(storage, "a/nothing")
    with pytest.raises(FileNotFoundError):
        storage.local_path("a/nothing", tmp_path / "cache")
    storage.delete("a/nothing")


def test_keys_are_listed_by_prefix(storage: Storage) -> None:
    for key in ("a/1/x", "a/1/y", "a/10/x", "a/2"):
        storage.write(key, io.BytesIO(b"."))
    assert sorted(storage.keys("a/1/")) == ["a/1/x", "a/1/y"]
    assert sorted(storage.keys("a/1")) == ["a/1/x", "a/1/y", "a/10/x"]
    assert sorted(storage.keys("a/")) == ["a/1/x", "a/1/y", "a/10/x", "a/2"]
    assert list(storage.keys("b/")) == []


def test_folders_are_listed_without_what_is_in_them(storage: Storage) -> None:
    for key in ("a/1/x/y", "a/1/x/z", "a/2/x", "a/file", "ab/3/x"):
        storage.write(key, io.BytesIO(b"x"))
    assert storage.folders("a/") == ["1", "2"]
    assert storage.folders("none/") == []


def test_deleting_a_prefix_leaves_its_namesakes(storage: Storage) -> None:
    for key in ("a/1/x", "a/1/deep/y", "a/10/x"):
        storage.write(key, io.BytesIO(b"."))
    storage.delete_all("a/1/")
    storage.delete_all("a/1/")
    assert list(storage.keys("a/")) == ["a/10/x"]
    storage.delete("a/10/x")
    assert list(storage.keys("a/")) == []


def test_only_a_folder_is_deleted_as_one(storage: Storage) -> None:
    for prefix in ("a", "", "/", "../", "a/../../"):
        with pytest.raises(ValueError, match=r"slash|not a storage key"):
            storage.delete_all(prefix)


def test_a_local_path_holds_the_content(storage: Storage, tmp_path: Path) -> None:
    storage.write("a/model.bin", io.BytesIO(BIG))
    path = storage.local_path("a/model.bin", tmp_path / "cache")
    assert path.read_bytes() == BIG
    assert storage.local_path("a/model.bin", tmp_path / "cache") == path


def test_an_adopted_file_is_no_longer_where_it_was(storage: Storage, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(BIG)
    storage.adopt("a/archive", upload)
    assert not upload.exists()
    assert read(storage, "a/archive") == BIG


class FailsHalfway(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 0:
            raise OSError("the disk is gone")
        return super().read(min(100, len(BIG)))


def test_a_write_that_fails_leaves_nothing(storage: Storage) -> None:
    storage.write("a/key", io.BytesIO(b"as it was"))
    with pytest.raises(OSError):
        storage.write("a/key", FailsHalfway(BIG))
    assert read(storage, "a/key") == b"as it was"
    assert list(storage.keys("a/")) == ["a/key"]


def test_a_healthy_storage_passes_its_check(storage: Storage) -> None:
    storage.check()


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\\b", "a\0b", "a/"])
def test_a_key_that_could_lead_elsewhere_is_a_bug(storage: Storage, key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a storage key"):
        checked_key(key)
    with pytest.raises(ValueError, match="not a storage key"):
        storage.write(key, io.BytesIO(b"."))
    assert not (tmp_path / "x").exists()


def test_temporary_files_are_no_keys(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path)
    storage.write("a/key", io.BytesIO(b"."))
    (tmp_path / "a" / "key.tmp-123").write_bytes(b"half")
    assert list(storage.keys("a/")) == ["a/key"]


def test_empty_folders_do_not_gather(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path)
    storage.write("a/b/c/key", io.BytesIO(b"."))
    storage.delete("a/b/c/key")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_fails_the_check(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path / "storage")
    (tmp_path / "storage").rmdir()
    with pytest.raises(FileNotFoundError):
        storage.check()


def test_an_unknown_address_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file:// or s3://"):
        open_storage(Settings(home=tmp_path, storage_url="ftp://somewhere", _env_file=None))


def test_the_default_lies_in_the_home(tmp_path: Path) -> None:
    storage = open_storage(Settings(home=tmp_path, _env_file=None))
    assert isinstance(storage, FilesystemStorage)
    assert storage.root == tmp_path / "storage"
