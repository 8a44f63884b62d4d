"""A real worker on a machine that seems to have accelerators: `worker_with_cards.py UUIDS ARGUMENTS`.

Only the driver is pretended, and what the jobs compute: each takes hold of its devices by the names that the
driver gave them, and fails when somebody else holds one.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.database.session import create_database_engine, create_sessions  # noqa: E402
from app.jobs import protocol  # noqa: E402
from app.settings import Settings  # noqa: E402
from tests.fake_driver import FakeDriver  # noqa: E402

PULSE_S = 0.1


def main() -> int:
    if sys.argv[1] == "job":
        return _job(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    from worker import __main__ as entry
    from worker import child, nvml

    nvml.pynvml = FakeDriver(sys.argv[1].split(","))  # type: ignore[assignment]
    child.job_command = _job_command
    return entry.main(sys.argv[2:])


def _job_command(job_id: str, fence: int, device: str) -> list[str]:
    return [sys.executable, __file__, "job", job_id, str(fence), device]


def _job(job_id: str, fence: int, device: str) -> int:
    """Hold the devices until a file named after the job appears, or the keeper wants no more."""
    settings = Settings()
    sessions = create_sessions(create_database_engine(settings))
    line = socket.socket(fileno=0)
    line.settimeout(PULSE_S)
    names = [_uuid(number) for number in device.split(",") if number != "cpu"]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_held(settings.home_path / name))
        while not (settings.home_path / f"{job_id}.done").exists():
            line.send(b".")
            try:
                line.recv(1)
                return 143  # told to stop, or the worker has gone
            except TimeoutError:
                pass
    with sessions() as session:
        protocol.succeed(session, job_id, fence, {"held": names})
    return 0


@contextmanager
def _held(path: Path) -> Iterator[None]:
    path.touch(exist_ok=False)
    try:
        yield
    finally:
        path.unlink()


def _uuid(number: str) -> str:
    """Return what a process that computes on this number really computes on."""
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    return os.environ["CUDA_VISIBLE_DEVICES"].split(",")[int(number)]


if __name__ == "__main__":
    sys.exit(main())
