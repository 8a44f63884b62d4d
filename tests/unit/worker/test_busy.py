"""A long call that moves bytes is no hang; one that moves none may be."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from worker import busy
from worker.busy import pulse_while_bytes_move
from worker.control import Control


class StillProcess:
    """A process that reads and writes nothing."""

    def io_counters(self) -> StillProcess:
        return self

    read_chars = write_chars = 0


@pytest.mark.parametrize("moves", [True, False])
def test_moving_bytes_are_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    if not moves:
        monkeypatch.setattr(busy.psutil, "Process", StillProcess)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pulse_while_bytes_move(Control(theirs), look_s=0.02):
            for _ in range(10):
                (tmp_path / "unpacked").write_bytes(b"x" * 1000)
                time.sleep(0.02)
        theirs.shutdown(socket.SHUT_WR)
        assert bool(ours.recv(100)) == moves
