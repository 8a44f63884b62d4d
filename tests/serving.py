"""A real `harrier serve` for tests: started on a free port, asked over HTTP, killed in every way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx2
import psutil

from app.settings import Settings

START_S = 90.0
NOT_INHERITED = ("HARRIER_", "COVERAGE_")
"""Of the environment. A program whose lines are counted needs up to twice its time, and these lines are
counted where the parts are tested by themselves."""
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def inherited() -> dict[str, str]:
    """Return the environment of a whole server under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}


class Serve:
    """`harrier serve` as a child process; nothing of it is left when the context ends."""

    def __init__(self, home: Path, **values: object) -> None:
        self.settings = Settings(home=home, port=free_port(), device="cpu", **values)
        given = {"home": home, "port": self.settings.port, "device": "cpu", **values}
        self.environment = {
            **inherited(),
            **{f"HARRIER_{name.upper()}": str(value) for name, value in given.items()},
        }
        self.output = home.with_name(f"{home.name}.log")

    def __enter__(self) -> Serve:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.http = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.settings.port}", timeout=30, trust_env=False
        )
        try:
            wait_for(lambda: "Harrier is ready" in self.printed or self.process.poll() is not None, START_S)
            assert self.process.poll() is None, self.printed
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        for left in self.processes():
            left.kill()

    @property
    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    def ended(self, job: str, *, within_s: float = 120.0) -> dict[str, Any]:
        """Wait for the end of the job at this path, and return it."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.http.get(job).json()
            return found if found["status"] in ("succeeded", "failed", "cancelled") else None

        return wait_for(look, within_s)

    def succeeded(self, job: str, *, within_s: float = 120.0) -> dict[str, Any]:
        """Wait for the success of the job at this path, and return it."""
        last = self.ended(job, within_s=within_s)
        assert last["status"] == "succeeded", last["failure"]
        return last

    def stop(self, number: signal.Signals = signal.SIGINT, *, within_s: float = 40.0) -> int:
        """Ask it to stop and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def processes(self) -> list[psutil.Process]:
        """Return every process that works for this home: by its environment, or the broker by its title."""
        mark, title = (
            f"HARRIER_HOME={self.settings.home}\0".encode(),
            str(self.settings.broker_socket).encode(),
        )
        return [
            process
            for process in psutil.process_iter()
            if mark in _facts(process.pid, "environ") or title in _facts(process.pid, "cmdline")
        ]

    def pid_of(self, *words: str) -> int | None:
        """Return the process whose command line holds all these words."""
        for process in self.processes():
            try:
                command = process.cmdline()
            except psutil.NoSuchProcess:
                continue
            if all(word in command for word in words):
                return int(process.pid)
        return None


class EngineProcess:
    """`python -m app.engine` alone, for a home that is there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self._start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(40)

    def _start(self) -> None:
        given = self._settings.model_dump(exclude_defaults=True)
        environment = {f"HARRIER_{name.upper()}": str(value) for name, value in given.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.engine"], env={**os.environ, **environment}, stdin=subprocess.DEVNULL
        )
        wait_for(lambda: accepts(self._settings.engine_socket), START_S)


def accepts(path: Path) -> bool:
    """Return whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def accepts_tcp(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _facts(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], T | None], within_s: float) -> T:
    """Return the first true answer of `condition`."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.05)
    return answer


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a name that is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="harrier-") as folder:
        yield Path(folder)


@contextmanager
def taken_port() -> Iterator[int]:
    """Hold a port as some other program would."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]
