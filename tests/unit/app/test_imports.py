"""The API is light: importing it brings no torch, no OpenCV and no numpy into the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "cv2", "numpy", "onnx", "onnxruntime", "hotcoco")


@pytest.mark.parametrize("module", ["app.main", "app.server", "app.api.openapi"])
def test_the_api_is_light(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rules_know_no_http() -> None:
    modules = (
        "app.datasets.service, app.jobs.service, app.models.service, app.training.service, app.keys.service"
    )
    code = (
        f"import sys, {modules}; print([n for n in ('fastapi', 'starlette', 'uvicorn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
