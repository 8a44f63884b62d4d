"""The supervisor as a child process: started, asked about its programs, stopped with all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any
from xmlrpc.client import Error, ServerProxy

from supervisor.states import ProcessStates
from supervisor.xmlrpc import SupervisorTransport

from app.settings import Settings
from app.supervisor.configuration import supervisor_configuration, supervisor_socket
from app.supervisor.frozen import end_hung
from app.supervisor.leash import PARENT
from app.supervisor.programs import LEASH, Program

SLACK_S = 10
"""Beyond the slowest program; then everything is killed."""


@dataclass(frozen=True, slots=True)
class ProgramState:
    """What the supervisor knows about one program."""

    group: str
    name: str
    pid: int
    gave_up: bool
    """It ended so often at once that it is not tried again."""
    is_misconfigured: bool
    """It ended because of a setting, and would do so again."""


class Supervisor:
    """Used as a context: when it ends, so have the supervisor and all its programs."""

    def __init__(self, settings: Settings, programs: Iterable[Program]) -> None:
        self._programs = tuple(programs)
        self._configuration = settings.home_path / "run" / "supervisor.conf"
        text = supervisor_configuration(settings, self._programs)
        self._configuration.write_text(text, encoding="utf-8")
        self._socket = supervisor_socket(settings)

    def __enter__(self) -> Supervisor:
        self._process = subprocess.Popen(
            [*LEASH, sys.executable, "-m", "app.supervisor.daemon", "-n", "-c", str(self._configuration)],
            env={**os.environ, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone: we stop the others in order
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ask_to_stop()
        if not self.has_ended(within_s=self.stop_wait_s):
            self._process.kill()  # the leash takes every program with it
            self._process.wait()

    @property
    def stop_wait_s(self) -> float:
        """Longest time that a stop in good order can take."""
        first, last = (
            max((program.stop_wait_s for program in self._programs if program.stops_last is late), default=0)
            for late in (False, True)
        )
        return first + last + SLACK_S

    def ask_to_stop(self) -> None:
        self._process.terminate()

    def has_ended(self, *, within_s: float = 0.0) -> bool:
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end_hung(self, name: str, pid: int) -> bool:
        """Have a process write the stacks of its threads to its log, if it still can, and kill it.

        It is started again like one that died. Returns False when it has gone already.
        """
        if not any((state.name, state.pid) == (name, pid) for state in self.states()):
            return False
        end_hung(pid)
        return True

    def states(self) -> tuple[ProgramState, ...]:
        """Return the state of every program; nothing while the supervisor itself starts or stops."""
        rows: list[dict[str, Any]] = []
        with self._asking() as supervisor:
            rows = supervisor.getAllProcessInfo()
        return tuple(_state(row) for row in rows)

    def start_again(self, program: ProgramState) -> None:
        """Start a program that the supervisor lets rest; whether it lives, its next state says."""
        with self._asking() as supervisor:
            supervisor.startProcess(f"{program.group}:{program.name}", False)

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """Yield what the supervisor can be asked; one that starts or stops answers nothing."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            with suppress(OSError, HTTPException, Error):
                yield ServerProxy("http://127.0.0.1", transport=transport).supervisor
        finally:
            transport.close()


def _state(row: dict[str, Any]) -> ProgramState:
    state = row["state"]
    return ProgramState(
        group=row["group"],
        name=row["name"],
        pid=row["pid"],
        gave_up=state == ProcessStates.FATAL,
        is_misconfigured=state == ProcessStates.EXITED and row["exitstatus"] == os.EX_CONFIG,
    )
