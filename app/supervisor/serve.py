"""The whole of `harrier serve`: check, prepare, start, tell the terminal what happens, stop."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from app.address import server_address
from app.alive import OK, ask_api
from app.settings import Settings
from app.supervisor.configuration import logs_folder
from app.supervisor.console import Console
from app.supervisor.home import check_port, hold_home
from app.supervisor.process import ProgramState, Supervisor
from app.supervisor.programs import Program, programs
from app.supervisor.readiness import Readiness

LOOK_S = 0.25
"""How often logs, programs and readiness are looked at."""
PATIENCE_S = 30.0
"""After so long without being ready we say what is missing."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


def serve(settings: Settings, say: Say, *, prepare: Callable[[Settings], None], workers: bool = True) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; return the exit status.

    Args:
        say: prints one line.
        prepare: called when home and port are ours and nothing runs yet.
        workers: False leaves them to other hosts.

    Raises:
        CannotServeError: another server holds the home or the port; nothing was started.
    """
    began = time.monotonic()
    with hold_home(settings, server_address(settings)), _stop_requested() as stop:
        check_port(settings)
        say(f"Harrier starts in {settings.home_path}; its programs write to {logs_folder(settings)}")
        prepare(settings)
        chosen = programs(settings, workers=workers)
        supervisor = Supervisor(settings, chosen)
        watch = _Watch(settings, supervisor, chosen, _if_possible(say), began)
        with supervisor:
            return watch.run(stop)


def _if_possible(say: Say) -> Say:
    """What is said may go to a file on a full disk: no reason to stop everything."""

    def say_if_possible(line: str) -> None:
        with suppress(OSError):
            say(line)

    return say_if_possible


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Set an event, instead of ending, when the process is asked to stop."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watch:
    """Says what a person should know: what is ready, the address, warnings, and which program died."""

    def __init__(
        self, settings: Settings, supervisor: Supervisor, chosen: Sequence[Program], say: Say, began: float
    ) -> None:
        self._settings, self._supervisor = settings, supervisor
        self._console = Console(logs_folder(settings), [program.name for program in chosen])
        self._readiness = Readiness(chosen)
        self._say, self._began = say, began
        self._pids: dict[str, int] = {}
        self._is_open = False
        self._complain_at = time.monotonic() + PATIENCE_S

    def run(self, stop: threading.Event) -> int:
        while not stop.wait(LOOK_S):
            self._print_logs()
            if self._supervisor.has_ended():
                self._say("The supervisor was killed, and everything with it.")
                return 1
            states = self._supervisor.states()
            self._look_at_programs(states)
            if any(program.gave_up for program in states):
                return 1
            if not self._is_open and any(program.is_misconfigured for program in states):
                return os.EX_CONFIG
            self._look_at_readiness()
            self._end_silent()
        self._say("Stopping. A job that runs saves its state first.")
        return self._stop()

    def _stop(self) -> int:
        self._supervisor.ask_to_stop()
        deadline = time.monotonic() + self._supervisor.stop_wait_s
        while not self._supervisor.has_ended(within_s=LOOK_S) and time.monotonic() < deadline:
            self._print_logs()
        self._print_logs()
        self._say("Stopped.")
        return 0

    def _print_logs(self) -> None:
        for line in self._console.new_lines():
            self._say(line)

    def _look_at_programs(self, states: Iterable[ProgramState]) -> None:
        """Note starts and deaths, and say so."""
        for program in states:
            if program.gave_up:
                self._tell_end(program.name, "cannot be started")
            elif program.is_misconfigured:
                self._deal_with_settings(program)
            elif program.pid and self._pids.get(program.name) != program.pid:
                if program.name in self._pids:
                    self._tell_end(program.name, "had ended and was started again")
                self._pids[program.name] = program.pid
                self._readiness.watch(program.name, program.pid)

    def _deal_with_settings(self, program: ProgramState) -> None:
        """End at once what was never ready; a server that was goes on with the rest, and keeps trying."""
        if self._is_open:  # an accelerator that was there may come back
            self._supervisor.start_again(program)
            return
        self._print_logs()  # the line that names the setting comes first
        self._say(f"The program {program.name} cannot be started with this setting; everything ends.")

    def _tell_end(self, name: str, what: str) -> None:
        self._say(f"The program {name} {what}; its log is {self._console.path(name)}")
        for line in self._console.last_lines(name):
            self._say(line)

    def _look_at_readiness(self) -> None:
        for name in self._readiness.news():
            after_s = time.monotonic() - self._began
            again = " again" if self._is_open else f" after {after_s:.1f} s"
            self._say(f"  {name:<{self._console.width}}  ready{again}")
        if self._is_open:
            return
        missing = self._readiness.waiting or self._refused()
        if not missing:
            self._is_open = True
            self._say(f"Harrier is ready: {server_address(self._settings)}  (Ctrl-C stops it)")
        elif time.monotonic() > self._complain_at:
            self._complain_at = math.inf
            self._say(f"Still waiting for {', '.join(missing)}; the logs may say why.")

    def _end_silent(self) -> None:
        for name, pid in self._readiness.silent():
            if self._supervisor.end_hung(name, pid):
                self._say(f"The program {name} (process {pid}) answered nothing any more and was killed.")

    def _refused(self) -> list[str]:
        """Return what a server lacks that cannot serve; say what is missing to one that can."""
        answer = ask_api(self._settings, "/readyz")
        if answer is None:
            return ["the API"]
        status, body = answer
        checks = json.loads(body).get("checks")
        if checks is None:  # what every call may answer when something is wrong: a problem, no report
            return [f"the API, which answers /readyz with status {status}"]
        lacking = [f"{name}: {state}" for name, state in checks.items() if state != "ok"]
        if status != OK:
            return lacking
        for lack in lacking:
            self._say(f"  {lack}")
        return []
