"""`harrier demo`, cut short: it goes the whole way, tells the truth about a bad model, and leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from detection.images import decode_image
from tests.serving import inherited, short_folder

COMMAND = ("demo", "--epochs", "1", "--images", "40")


def test_one_epoch_is_honestly_not_enough(tmp_path: Path) -> None:
    output = tmp_path / "annotated.jpg"
    with short_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *COMMAND, "--output", str(output)],
            env={**inherited(), "TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert list(folder.glob("harrier*")) == []
    assert done.returncode == 1, done.stderr
    assert "AP50 is below 0.9" in done.stderr
    assert f"annotated picture: {output}" in done.stdout
    for stage in ("starting the server", "uploading", "training YOLOX-nano", "detecting", "in all"):
        assert stage in done.stderr
    assert decode_image(output.read_bytes()).size_wh == (256, 256)
