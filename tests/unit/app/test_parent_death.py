"""A process that dies with its parent, tried with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

CHILD = """
import signal, sys, time
from app.parent_death import die_with_parent
die_with_parent(signal.SIGKILL)
print("armed", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_does_not_outlive_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone == [child]


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    code = "from app.parent_death import die_with_parent; die_with_parent(parent_pid=1); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
