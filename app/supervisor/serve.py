"""The whole of `harrier serve`: check, prepare, start, tell the terminal what happens, stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import httpx2

from app.settings import Settings
from app.supervisor.configuration import logs_folder
from app.supervisor.console import Console
from app.supervisor.home import check_port, hold_home, server_address
from app.supervisor.process import Supervisor
from app.supervisor.programs import programs

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
    with hold_home(settings, server_address(settings)), _stop_requested() as stop:
        check_port(settings)
        prepare(settings)
        chosen = programs(settings, workers=workers)
        console = Console(logs_folder(settings), [program.name for program in chosen])
        with Supervisor(settings, chosen) as supervisor:
            return _Watch(settings, supervisor, console, say).run(stop)


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
    """Says what a person should know: the logs, the address, a program that was started again or given up."""

    def __init__(self, settings: Settings, supervisor: Supervisor, console: Console, say: Say) -> None:
        self._settings, self._supervisor = settings, supervisor
        self._console, self._say = console, say
        self._pids: dict[str, int] = {}
        self._ready = False
        self._complain_at = time.monotonic() + PATIENCE_S

    def run(self, stop: threading.Event) -> int:
        while not stop.wait(LOOK_S):
            self._print_logs()
            if self._supervisor.has_ended():
                self._say("The supervisor was killed, and everything with it.")
                return 1
            if self._look_at_programs():
                return 1
            if not self._ready:
                self._look_at_readiness()
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

    def _look_at_programs(self) -> bool:
        """Note restarts; return whether a program cannot be started at all."""
        gave_up = False
        for program in self._supervisor.states():
            if program.gave_up:
                log = logs_folder(self._settings) / f"{program.name}.log"
                self._say(f"The program {program.name} cannot be started; its log is {log}")
                gave_up = True
            if program.pid and self._pids.setdefault(program.name, program.pid) != program.pid:
                self._say(f"The program {program.name} had ended and was started again.")
                self._pids[program.name] = program.pid
        return gave_up

    def _look_at_readiness(self) -> None:
        address = server_address(self._settings)
        missing = _missing(address, self._settings.allowed_hosts)
        self._ready = missing is None
        if self._ready:
            self._say(f"Harrier is ready: {address}  (home {self._settings.home_path}; Ctrl-C stops it)")
        elif time.monotonic() > self._complain_at:
            self._say(f"Not ready yet: {missing}")
            self._complain_at += PATIENCE_S


def _missing(address: str, allowed_hosts: tuple[str, ...]) -> str | None:
    """Return why the API does not serve yet; None when it does."""
    named = [name for name in allowed_hosts if name != "*"]
    headers = {"Host": named[0]} if named else {}
    try:
        answer = httpx2.get(f"{address}/readyz", headers=headers, timeout=LOOK_S * 4, trust_env=False)
    except httpx2.HTTPError:
        return "the API does not answer"
    return None if answer.is_success else answer.text
