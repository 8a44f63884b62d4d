"""The page in a real browser: Chromium runs its scripts against a running server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from detection.deploy.package import write_model
from detection.models import create_served_model
from tests.published import RECORD, add_real_model
from tests.serving import Serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def shown(serve: Serve, view: str, folder: Path) -> str:
    """Return the page as it stands when its scripts have come to rest."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    done = subprocess.run(
        [
            str(CHROMIUM),
            *options,
            "--no-first-run",
            f"--user-data-dir={folder}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            f"{serve.http.base_url}#{view}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_a_profile_is_a_table_on_the_page(serve: Serve, tmp_path: Path) -> None:
    detector = create_served_model("yolox-nano", num_classes=len(RECORD.classes))
    write_model(detector, RECORD, tmp_path)
    add_real_model(serve.settings, tmp_path, "paged")
    job = serve.http.post("/models/paged/profile", json={"runs": 1, "verbose": True}).headers["Location"]
    serve.succeeded(job)
    models = shown(serve, "models", tmp_path / "models")
    assert 'href="#model/paged"' in models
    page = shown(serve, "model/paged", tmp_path / "model")
    for heading in ("Backward, ms", "backbone", "whole", "parameter tensors"):
        assert heading in page, page
    assert "profile of" in shown(serve, "jobs", tmp_path / "jobs")


def test_what_is_not_there_is_said(serve: Serve, tmp_path: Path) -> None:
    assert "there is no model nothing" in shown(serve, "model/nothing", tmp_path / "browser")
