"""What a job process may take, looked at from inside such a process."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from app.jobs.states import JobKind
from worker.limits import UNTRUSTED_LEAST

CODE = """
import json, os, resource, sys
from app.jobs.states import JobKind
from app.settings import Settings
from worker.limits import limit_resources
settings = Settings(max_archive_bytes=10**9, cpu_jobs=int(sys.argv[2]))
limit_resources(JobKind(sys.argv[1]), settings, device=sys.argv[3])
names = ("CORE", "AS", "DATA", "FSIZE")
limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names}
score = open("/proc/self/oom_score_adj").read()
print(json.dumps({**limits, "nice": os.nice(0), "score": int(score)}))
"""


def limits_of(kind: JobKind, *, cpu_jobs: int = 2, device: str = "cpu") -> dict[str, int]:
    command = [sys.executable, "-c", CODE, kind, str(cpu_jobs), device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", [JobKind.TRAIN, JobKind.DATASET_IMPORT])
def test_every_job_makes_room_for_those_who_wait_for_an_answer(kind: JobKind) -> None:
    found = limits_of(kind)
    assert (found["CORE"], found["score"]) == (0, 500)
    assert found["nice"] >= 8


def test_an_import_of_pictures_cannot_eat_the_machine() -> None:
    found = limits_of(JobKind.DATASET_IMPORT)
    assert found["FSIZE"] == 10**9
    assert psutil.virtual_memory().total < found["AS"] < 2**60


def test_a_training_may_map_what_its_accelerator_needs() -> None:
    assert limits_of(JobKind.TRAIN)["AS"] == -1


def test_a_video_may_map_what_its_accelerator_needs() -> None:
    found = limits_of(JobKind.DETECT_VIDEO, device="0")
    assert (found["DATA"], found["FSIZE"]) == (-1, 10**9)


@pytest.mark.parametrize("kind", [JobKind.DATASET_IMPORT, JobKind.MODEL_IMPORT, JobKind.DETECT_VIDEO])
def test_an_untrusted_file_cannot_make_its_reader_hold_all_memory(kind: JobKind) -> None:
    alone, crowded = (limits_of(kind, cpu_jobs=number)["DATA"] for number in (1, 10_000))
    assert crowded == UNTRUSTED_LEAST <= alone
    assert alone < psutil.virtual_memory().total
