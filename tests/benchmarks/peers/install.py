"""Makes one environment per peer under `.venv-peers`: what it needs itself, and behind it what Harrier has.

`make bench-peers` runs it. One that cannot be installed is named and left out; the benchmark reports it as
missing. An environment is made anew only when its requirements changed.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = ROOT / ".venv-peers"
OURS = "harrier.pth"
DONE = "installed.txt"


def python_of(peer: str) -> Path | None:
    """Return the interpreter of a peer's environment, if it is installed as its requirements say."""
    folder = ENVIRONMENTS / peer
    wanted = (REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8")
    done = folder / DONE
    complete = done.is_file() and done.read_text(encoding="utf-8") == wanted
    return folder / "bin" / "python" if complete else None


def install(peer: str) -> None:
    """Make the environment of one peer.

    Raises:
        CalledProcessError: pip could not install it.
    """
    folder, requirements = ENVIRONMENTS / peer, REQUIREMENTS / f"{peer}.txt"
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin" / "python"
    quietly = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *quietly, "-r", requirements], check=True)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    purelib = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    # Read after the environment's own packages, so that these win.
    behind = f"{sysconfig.get_path('purelib')}\n{ROOT}\n"
    (Path(purelib) / OURS).write_text(behind, encoding="utf-8")
    (folder / DONE).write_text(requirements.read_text(encoding="utf-8"), encoding="utf-8")


def main() -> None:
    """Install every peer that is not there yet."""
    missing = []
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        peer = file.stem
        if python_of(peer) is not None:
            continue
        print(f"{peer}: installing", flush=True)
        try:
            install(peer)
        except subprocess.CalledProcessError as error:
            print(f"{peer}: cannot be installed: {error}", flush=True)
            missing.append(peer)
    if missing:
        sys.exit(f"missing: {', '.join(missing)}")


if __name__ == "__main__":
    main()
