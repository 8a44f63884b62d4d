"""Prepare the virtual environment that every `make` target runs in; quick when there is nothing to do.

    python3 tools/install.py [--venv FOLDER] LOCK...

Checks the machine before anything is downloaded, makes the environment, installs the locked dependencies by
their hashes and then the project itself. What was installed is remembered in stamps, written only after a
step has succeeded, so an interrupted run is simply run again. Standard library only.
"""

import sys

OLDEST_PYTHON = (3, 11)
if sys.version_info < OLDEST_PYTHON:
    sys.exit(
        "harrier: Python %d.%d or newer is needed, and %s is Python %d.%d.\n"
        "Choose another one:  make PYTHON=python3.12 ..."
        % (*OLDEST_PYTHON, sys.executable, *sys.version_info[:2])
    )

import argparse
import ctypes
import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
}
"""What OpenCV loads from the system, and the Debian package that brings it."""
BYTES_NEEDED = 8 * 1024**3
"""What a full environment takes on the disk, most of it torch and its CUDA libraries."""
LAST_LINES = 25
"""How much of pip's output is shown when it fails."""


class CannotInstallError(Exception):
    """Something that the user must do first; the message says what."""


def prepare(venv: Path, locks: Iterable[Path]) -> None:
    """Bring `venv` to what `locks` ask for; does nothing when it is there already."""
    venv.mkdir(exist_ok=True)
    with _one_at_a_time():
        place = f"{venv} {Path(sys.executable).resolve()} {sys.version_info.major}.{sys.version_info.minor}"
        if _stamp(venv, "python") != place:
            check_machine(venv)
            _make_environment(venv, place)
        for lock in locks:
            _once(venv, lock.stem, _digest(lock), partial(_install_lock, venv, lock))
        _once(venv, "harrier", _digest(ROOT / "pyproject.toml"), partial(_install_project, venv))


def check_machine(venv: Path) -> None:
    """Complain about everything that is missing, in one message, before anything is downloaded."""
    missing = [*missing_modules(), *missing_libraries()]
    if missing:
        packages = " ".join(sorted({package for _, package in missing}))
        names = ", ".join(name for name, _ in missing)
        raise CannotInstallError(
            f"this machine lacks {names}.\nOn Debian and Ubuntu:  sudo apt-get install -y {packages}"
        )
    free = shutil.disk_usage(venv).free
    if free < BYTES_NEEDED:
        raise CannotInstallError(
            f"the dependencies need about {BYTES_NEEDED / 1e9:.0f} GB in {venv}, "
            f"but only {free / 1e9:.1f} GB are free there."
        )


def missing_modules() -> list[tuple[str, str]]:
    """Return the parts of Python that some systems package separately, with their Debian package."""
    return [
        (f"Python's module {name}", "python3-venv")
        for name in ("venv", "ensurepip")
        if importlib.util.find_spec(name) is None
    ]


def missing_libraries() -> list[tuple[str, str]]:
    """Return the system libraries that cannot be loaded, with their Debian package."""
    return [(name, package) for name, package in SYSTEM_LIBRARIES.items() if not _is_loadable(name)]


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _make_environment(venv: Path, place: str) -> None:
    say(f"making the virtual environment {venv}")
    # An environment without its stamp was interrupted and is completed; one that was moved, or whose Python
    # was replaced, has other paths in its scripts and is made anew.
    anew = ["--clear"] if _stamp(venv, "python") else []
    _run([sys.executable, "-m", "venv", *anew, str(venv)])
    _write_stamp(venv, "python", place)


def _install_lock(venv: Path, lock: Path) -> None:
    first = "" if _stamp(venv, lock.stem) else " (the first time this downloads up to 3 GB)"
    say(f"installing {lock.name}{first}")
    # A lock lists everything, so nothing is to be resolved. Older pips would try all the same, and fail as
    # soon as a package that is wanted with an extra has a newer release than the locked one.
    _run([*_pip(venv), "--no-deps", "--require-hashes", "-r", str(lock)])


def _install_project(venv: Path) -> None:
    say("installing the project itself")
    _run([*_pip(venv), "--no-deps", "--no-build-isolation", "-e", str(ROOT)])


def _pip(venv: Path) -> list[str]:
    return [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]


def _once(venv: Path, name: str, digest: str, step: Callable[[], None]) -> None:
    if _stamp(venv, name) == digest:
        return
    step()
    _write_stamp(venv, name, digest)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stamp(venv: Path, name: str) -> str:
    path = venv / f".installed-{name}"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _write_stamp(venv: Path, name: str, content: str) -> None:
    new = venv / ".installed.new"
    new.write_text(content, encoding="utf-8")
    new.replace(venv / f".installed-{name}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let a second `make` in the same folder wait for the first; this very file is the lock."""
    with Path(__file__).open(encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is installing here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    """Run quietly: a terminal shows the newest line of the output, and a failure shows the end of it."""
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines = [*lines[-LAST_LINES:], line]
            _show(line.strip())
        _show("")
    if process.returncode != 0:
        raise CannotInstallError("".join(lines) + f"this command failed: {' '.join(command)}")


def _show(line: str) -> None:
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r\033[K" + line[:width])
        sys.stderr.flush()


def say(text: str) -> None:
    sys.stderr.write(f"harrier: {text}\n")
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("locks", type=Path, nargs="+", metavar="LOCK")
    arguments = parser.parse_args()
    try:
        prepare(arguments.venv.absolute(), [lock.absolute() for lock in arguments.locks])
    except CannotInstallError as error:
        sys.exit(f"harrier: {error}")
    except KeyboardInterrupt:
        sys.exit("\nharrier: interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
