"""The line between a job process and its keeper."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from app.jobs.protocol import LostLeaseError
from detection.training.state import StopRequest
from worker.control import LAST_WORD, LETTERS, PULSE, Control, StoppedError
from worker.exit_codes import ExitCode

CHILD = """
import socket, sys, time
from worker.control import Control
line = socket.socket(fileno=0)
control = Control(line)
control.listen()
if sys.argv[1] == "obeys":
    control.obey_yourself()
control.pulse()
while control.request() is None or sys.argv[1] == "obeys":
    time.sleep(0.02)
"""


@pytest.fixture
def line() -> Iterator[tuple[Control, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        control = Control(theirs)
        control.obey_yourself()
        yield control, ours


def started(how: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", CHILD, how], stdin=theirs.fileno())
    theirs.close()
    ours.settimeout(20)
    assert ours.recv(1) == b"."
    return process, ours


def test_a_request_shows_progress(line: tuple[Control, socket.socket]) -> None:
    control, ours = line
    assert control.request() is None
    assert ours.recv(10) == b"."


def test_a_full_line_has_said_enough(line: tuple[Control, socket.socket]) -> None:
    control, _ = line
    for _ in range(100_000):
        control.pulse()
    assert control.request() is None


def test_the_last_word_waits_for_room(line: tuple[Control, socket.socket]) -> None:
    control, ours = line
    ours.settimeout(5)
    for _ in range(1000):
        control.pulse()
    speaking = threading.Thread(target=control.last_word)
    speaking.start()
    heard = b""
    while LAST_WORD not in heard:
        heard += ours.recv(4096)
    speaking.join()
    assert heard.endswith(LAST_WORD)
    assert set(heard[:-1]) == set(PULSE)


def test_the_last_word_may_find_nobody(line: tuple[Control, socket.socket]) -> None:
    control, ours = line
    ours.close()
    control.last_word()
    assert control.request() is StopRequest.DRAIN


def test_a_stronger_order_replaces_a_weaker_one(line: tuple[Control, socket.socket]) -> None:
    control, _ = line
    for order, obeyed in [
        (StopRequest.FINISH, StopRequest.FINISH),
        (StopRequest.DRAIN, StopRequest.DRAIN),
        (StopRequest.FINISH, StopRequest.DRAIN),
        (StopRequest.CANCEL, StopRequest.CANCEL),
        (StopRequest.DRAIN, StopRequest.CANCEL),
    ]:
        control._order_at_least(order)
        assert control.request() is obeyed


def test_a_lost_lease_is_raised_at_the_next_step(line: tuple[Control, socket.socket]) -> None:
    control, _ = line
    control.lose(LostLeaseError("job"))
    with pytest.raises(LostLeaseError):
        control.request()


@pytest.mark.parametrize(
    ("order", "code"),
    [(StopRequest.CANCEL, ExitCode.CANCELLED), (StopRequest.DRAIN, ExitCode.DRAINED)],
)
def test_a_job_with_nothing_to_save_ends_at_once(order: StopRequest, code: ExitCode) -> None:
    process, ours = started("ends")
    with ours:
        ours.send(LETTERS[order])
        assert process.wait(10) == code


def test_sigterm_is_a_drain() -> None:
    process, ours = started("ends")
    with ours:
        process.terminate()
        assert process.wait(10) == ExitCode.DRAINED


def test_a_process_whose_keeper_is_gone_ends_itself() -> None:
    process, ours = started("obeys")
    ours.close()
    assert process.wait(10) == ExitCode.LOST_LEASE


def test_an_order_that_came_early_is_not_forgotten() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        control = Control(theirs)
        control._order = StopRequest.CANCEL  # as the listening thread would
        with pytest.raises(StoppedError):
            control.obey_yourself()
