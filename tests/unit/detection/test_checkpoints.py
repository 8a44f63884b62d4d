"""Checkpoints that survive kills, full disks, flipped bits and other trainings' folders."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from detection.errors import CheckpointError, NoSpaceError
from detection.training import checkpoints
from detection.training.checkpoints import MANIFEST, CheckpointStore, Identity, find_non_finite

IDENTITY = Identity(config_sha256="c" * 64, dataset_sha256="d" * 64)


class Diary(list[str]):
    """The log of a store."""

    def log(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def store(tmp_path: Path, diary: Diary) -> CheckpointStore:
    return open_store(tmp_path, diary)


def open_store(folder: Path, diary: Diary, identity: Identity = IDENTITY) -> CheckpointStore:
    return CheckpointStore(folder, identity, log=diary.log, sleep=lambda _: None)


def payload(step: int, *, best_step: int | None = None) -> dict[str, Any]:
    return {
        "identity": msgspec.to_builtins(IDENTITY),
        "state": {"step": step, "best_step": best_step},
        "model": {"weight": torch.full((8,), float(step)), "count": torch.tensor(step)},
    }


def save(store: CheckpointStore, *steps: int, best: int | None = None) -> None:
    for step in steps:
        store.save(payload(step, best_step=best), step=step, best=step == best)


def steps_on_disk(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("step-*.pt"))


def newest(folder: Path) -> Path:
    return max(folder.glob("step-*.pt"))


def step_of(loaded: dict[str, Any] | None) -> int:
    assert loaded is not None
    assert loaded["model"]["weight"].eq(loaded["state"]["step"]).all()
    return int(loaded["state"]["step"])


def test_an_empty_folder_has_no_checkpoint(store: CheckpointStore) -> None:
    assert store.load_latest() is None
    assert store.load_best() is None


def test_the_newest_comes_back_in_another_process(
    tmp_path: Path, store: CheckpointStore, diary: Diary
) -> None:
    save(store, 1, 2)
    assert step_of(open_store(tmp_path, diary).load_latest()) == 2
    assert diary == []


def test_the_last_two_and_the_best_are_kept(tmp_path: Path, store: CheckpointStore, diary: Diary) -> None:
    save(store, 1, 2, 3, 4, 5, best=2)
    assert steps_on_disk(tmp_path) == [2, 4, 5]
    assert step_of(store.load_best()) == 2
    save(store, 6, best=6)
    assert steps_on_disk(tmp_path) == [5, 6]
    assert step_of(open_store(tmp_path, diary).load_best()) == 6


def test_without_a_best_the_newest_is_published(store: CheckpointStore) -> None:
    save(store, 1, 2)
    assert step_of(store.load_best()) == 2


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path, store: CheckpointStore) -> None:
    save(store, 1, 2)
    other = payload(2) | {"note": "again"}
    store.save(other, step=2, best=False)
    assert steps_on_disk(tmp_path) == [1, 2]
    loaded = store.load_latest()
    assert loaded is not None
    assert loaded["note"] == "again"


def test_the_manifest_names_the_newest_the_best_and_every_hash(
    tmp_path: Path, store: CheckpointStore
) -> None:
    save(store, 1, 2, best=1)
    manifest = msgspec.json.decode((tmp_path / MANIFEST).read_bytes())
    assert [each["step"] for each in manifest["checkpoints"]] == [1, 2]
    assert manifest["latest"] == newest(tmp_path).name
    assert manifest["best"].startswith("step-000000001-")
    assert all(each["sha256"].startswith(each["file"][15:31]) for each in manifest["checkpoints"])


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_costs_one_checkpoint(tmp_path: Path, diary: Diary, seed: int) -> None:
    store = open_store(tmp_path, diary)
    save(store, 1, 2)
    path, random = newest(tmp_path), Random(seed)
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    assert step_of(open_store(tmp_path, diary).load_latest()) == 1
    assert any("is damaged" in line for line in diary)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_torn_checkpoint_costs_one_checkpoint(tmp_path: Path, diary: Diary, keep: float) -> None:
    store = open_store(tmp_path, diary)
    save(store, 1, 2, best=2)
    path = newest(tmp_path)
    os.truncate(path, int(path.stat().st_size * keep))
    assert step_of(store.load_latest()) == 1
    assert step_of(store.load_best()) == 1


def test_a_lost_checkpoint_costs_one_checkpoint(tmp_path: Path, store: CheckpointStore, diary: Diary) -> None:
    save(store, 1, 2)
    newest(tmp_path).unlink()
    assert step_of(store.load_latest()) == 1
    assert any("cannot be read" in line for line in diary)
    save(store, 2)
    assert step_of(store.load_latest()) == 2


def test_with_every_checkpoint_damaged_nothing_starts_from_scratch(
    tmp_path: Path, store: CheckpointStore
) -> None:
    save(store, 1, 2)
    for path in tmp_path.glob("step-*.pt"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged"):
        store.load_latest()


@pytest.mark.parametrize("content", [b"", b"{", b'{"identity": 3}'])
def test_a_damaged_manifest_is_rebuilt_from_the_files(
    tmp_path: Path, store: CheckpointStore, diary: Diary, content: bytes
) -> None:
    save(store, 1, 2, 3, best=1)
    (tmp_path / MANIFEST).write_bytes(content)
    again = open_store(tmp_path, diary)
    assert step_of(again.load_latest()) == 3
    assert step_of(again.load_best()) == 1
    assert any("the manifest is damaged" in line for line in diary)


def test_a_kill_between_file_and_manifest_is_harmless(
    tmp_path: Path, store: CheckpointStore, diary: Diary
) -> None:
    save(store, 1)
    (tmp_path / "step-000000002-0000000000000000.pt").write_bytes(b"never named")
    (tmp_path / "step-000000003-0000000000000000.pt.tmp-77").write_bytes(b"half")
    again = open_store(tmp_path, diary)
    assert step_of(again.load_latest()) == 1
    assert diary == ["removed step-000000003-0000000000000000.pt.tmp-77, left by a save that did not end"]
    save(again, 4)
    assert steps_on_disk(tmp_path) == [1, 4]


def test_checkpoints_of_another_training_are_refused(
    tmp_path: Path, store: CheckpointStore, diary: Diary
) -> None:
    save(store, 1)
    other = Identity(config_sha256="e" * 64, dataset_sha256=IDENTITY.dataset_sha256)
    with pytest.raises(CheckpointError, match="another training"):
        open_store(tmp_path, diary, other)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="another training"):
        open_store(tmp_path, diary, other)


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    tmp_path: Path, store: CheckpointStore, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1)
    bad = payload(2)
    bad["model"]["weight"][3] = torch.nan
    with pytest.raises(CheckpointError, match=r"model\.weight is not finite"):
        store.save(bad, step=2, best=False)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "find_non_finite", lambda _: None)
        store.save(bad, step=2, best=False)
    assert step_of(store.load_latest()) == 1
    assert any("refused" in line for line in diary)


def test_what_is_not_finite_is_found_wherever_it_is() -> None:
    nested = {"a": [torch.zeros(2), (torch.tensor([1.0, torch.inf]),)], "b": torch.tensor(3)}
    assert find_non_finite(nested) == "checkpoint.a.1.0"
    assert find_non_finite({"a": torch.ones(2), "b": "text", "c": 1.0}) is None


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, store: CheckpointStore) -> None:
    store.save(payload(1) | {"path": Path("x")}, step=1, best=False)
    with pytest.raises(Exception, match="Weights only load failed"):
        store.load_latest()


class FailingWrites:
    """Lets a number of writes fail, then lets them pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int, number: int) -> None:
        self.left, self.number, self.write = failures, number, checkpoints.write_durably
        monkeypatch.setattr(checkpoints, "write_durably", self)

    def __call__(self, path: Path, content: bytes | memoryview) -> str:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.write(path, content)


def test_a_failed_save_is_tried_three_times(
    tmp_path: Path, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    store = CheckpointStore(tmp_path, IDENTITY, log=diary.log, sleep=waits.append)
    FailingWrites(monkeypatch, failures=2, number=errno.EIO)
    save(store, 1)
    assert waits == [1.0, 2.0]
    assert [line.partition(":")[0] for line in diary] == [
        f"saving the checkpoint of step 1 failed, attempt {attempt}" for attempt in (1, 2)
    ]
    assert step_of(store.load_latest()) == 1


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, NoSpaceError, "free bytes"),
        (errno.EIO, CheckpointError, "could not be written"),
        (errno.EACCES, CheckpointError, "Permission denied"),
    ],
)
def test_a_save_that_keeps_failing_ends_the_attempt_and_costs_no_older_one(
    store: CheckpointStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[CheckpointError],
    message: str,
) -> None:
    save(store, 1)
    FailingWrites(monkeypatch, failures=3, number=number)
    with pytest.raises(kind, match=message):
        save(store, 2)
    assert step_of(store.load_latest()) == 1


@pytest.mark.parametrize("failures", range(1, 4))
def test_a_full_disk_at_any_write_leaves_a_checkpoint_that_loads(
    tmp_path: Path, diary: Diary, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    store = open_store(tmp_path, diary)
    save(store, 1)
    FailingWrites(monkeypatch, failures=failures, number=errno.ENOSPC)
    try:
        save(store, 2)
    except NoSpaceError:
        assert failures == 3
    assert step_of(open_store(tmp_path, diary).load_latest()) == (1 if failures == 3 else 2)


def test_a_nearly_full_disk_is_noticed_before_writing(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(NoSpaceError) as caught:
        save(store, 2)
    assert caught.value.bytes_free == 100
    assert caught.value.bytes_needed > 1000
    assert step_of(store.load_latest()) == 1
