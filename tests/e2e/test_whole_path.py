"""From a folder of pictures to boxes, by the command line; and pictures that were made to break servers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
import safetensors.numpy

from detection.data.synthetic import CLASSES, write_synthetic_dataset
from detection.images import Pixels, decode_image
from tests.onnx_alone import detect_alone
from tests.pictures import png
from tests.serving import Serve

TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}
"""How the pixels lie in a file that is marked with each EXIF orientation."""


def harrier(serve: Serve, *arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        env=serve.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == status, done.stderr
    return done.stdout.strip() if status == 0 else done.stderr


def test_a_folder_becomes_a_model_that_detects(serve: Serve, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "shapes", num_images=20, size=64)
    dataset = harrier(serve, "datasets", "add", tmp_path / "shapes")
    assert "shapes" in harrier(serve, "datasets", "list")

    options = ("--architecture", "yolox-nano", "--epochs", 2, "--batch-size", 4, "--input-size", 64)
    model = harrier(serve, "train", dataset, *options, "--set", "ema.decay=0.9", "--watch")
    job = json.loads(harrier(serve, "jobs", "list", "--kind", "train", "--json"))[0]
    assert (job["status"], job["result"]["model_id"]) == ("succeeded", model)
    assert job["config"]["ema"]["decay"] == 0.9
    assert job["progress"]["epoch"] == 2
    assert harrier(serve, "jobs", "log", job["id"])
    harrier(serve, "jobs", "cancel", job["id"], status=1)

    harrier(serve, "models", "rename", model, "first try")
    harrier(serve, "models", "alias", model, "production")
    shown = json.loads(harrier(serve, "models", "show", model))
    assert (shown["name"], shown["alias"], shown["classes"]) == ("first try", "production", list(CLASSES))

    pictures = sorted((tmp_path / "shapes").rglob("*.jpg"))
    found = json.loads(harrier(serve, "detect", tmp_path / "shapes", "--score-threshold", 0.001))
    assert [image["file"] for image in found["images"]] == [str(path) for path in pictures]
    assert {image["model"] for image in found["images"]} == {model}
    assert {image["width"] for image in found["images"]} == {64}

    graph = tmp_path / "model.onnx"
    harrier(serve, "models", "download", model, "--format", "onnx", "--output", graph)
    assert graph.read_bytes() == downloaded(serve, model, "onnx")
    weights = safetensors.numpy.load(downloaded(serve, model, "safetensors"))
    learnt = [value for name, value in weights.items() if not name.endswith(("_mean", "_var", "_tracked"))]
    assert sum(value.size for value in learnt) == shown["parameters"]
    wide = cv2.resize(decode_image(pictures[0].read_bytes()).pixels, (150, 110))
    it_sees_the_same_without_us(serve, model, png(wide), score_threshold=0.0)


def downloaded(serve: Serve, model: str, form: str) -> bytes:
    """Download weights; see that they are what the model says, come once, and can be gone on with."""
    files = serve.http.get(f"/models/{model}").json()["files"]
    (listed,) = (file for file in files if file["format"] == form)
    path, asked = f"/models/{model}/weights", {"format": form}
    answer = serve.http.get(path, params=asked)
    etag = answer.headers["ETag"]
    assert answer.status_code == 200
    assert len(answer.content) == listed["size_bytes"]
    assert hashlib.sha256(answer.content).hexdigest() == listed["sha256"] == etag.strip('"')
    assert serve.http.get(path, params=asked, headers={"If-None-Match": etag}).status_code == 304
    rest = serve.http.get(path, params=asked, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, answer.content[1000:])
    return answer.content


def it_sees_the_same_without_us(serve: Serve, model: str, picture: bytes, *, score_threshold: float) -> None:
    """ONNX Runtime and the downloaded graph alone find what `/detect` finds."""
    parameters = {"model": model, "score_threshold": score_threshold, "max_detections": 1000}
    served = ask(serve, picture, **parameters).json()["images"][0]["detections"]
    alone = detect_alone(downloaded(serve, model, "onnx"), picture, score_threshold=score_threshold)
    assert len(served) == len(alone) >= 3
    for expected in served:
        twin = max(
            (found for found in alone if found.label == expected["label"]),
            key=lambda found: overlap(expected["box"], dict(zip(expected["box"], found.box, strict=True))),
        )
        assert twin.score == pytest.approx(expected["score"], abs=1e-4)
        assert twin.box == pytest.approx(list(expected["box"].values()), abs=0.05)


def test_a_picture_that_fails_is_listed_and_the_others_are_not_lost(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    harrier(serve, "detect", tmp_path, status=1)


def test_a_failure_is_one_clear_message(serve: Serve, tmp_path: Path) -> None:
    assert "[not_found]" in harrier(serve, "jobs", "show", "nobody", status=1)
    wrong = harrier(serve, "train", "nobody", "--set", "epochs=-1", "--set", "optimizer.lr=x", status=1)
    assert "/epochs" in wrong
    assert "/optimizer/lr" in wrong
    (tmp_path / "empty").mkdir()
    assert "no picture in" in harrier(serve, "detect", tmp_path / "empty", status=1)
    assert str(tmp_path / "nowhere") in harrier(serve, "datasets", "add", tmp_path / "nowhere", status=1)


@pytest.fixture(scope="module")
def coco(serve: Serve, reference: Path) -> str:
    """The id of a model with the weights of the original project."""
    return harrier(serve, "models", "import", reference / "weights" / "yolox-nano-coco.pth", "--name", "coco")


@pytest.fixture(scope="module")
def awkward(reference: Path) -> dict[str, bytes]:
    table = (reference / "photos" / "awkward-images.tsv").read_text().splitlines()
    with zipfile.ZipFile(reference / "photos" / "awkward-images.zip") as archive:
        files = {Path(name).name: archive.read(name) for name in archive.namelist()}
    return {name: files[name] for name in (line.split("\t")[0] for line in table[1:])}


def ask(serve: Serve, picture: bytes, accept: str = "*/*", **parameters: object) -> httpx2.Response:
    headers = {"Content-Type": "image/jpeg", "Accept": accept}
    chosen = {"score_threshold": 0.01, **parameters}
    return serve.http.post("/detect", content=picture, headers=headers, params=chosen)


def image(serve: Serve, model: str, picture: bytes) -> dict[str, Any]:
    found: dict[str, Any] = ask(serve, picture, model=model).json()["images"][0]
    return found


@pytest.mark.reference
def test_no_awkward_picture_hurts_the_server(serve: Serve, coco: str, awkward: dict[str, bytes]) -> None:
    engine = serve.pid_of("app.engine")
    assert len(awkward) == 71
    answers = {name: ask(serve, picture, model=coco) for name, picture in awkward.items()}
    assert {answer.status_code for answer in answers.values()} == {200, 413, 415, 422}
    for name, answer in answers.items():
        if answer.status_code != 200:
            assert "image" in answer.json()["code"], name
        drawn = ask(serve, awkward[name], accept="image/jpeg", model=coco)
        assert drawn.status_code == answer.status_code, name
    assert serve.pid_of("app.engine") == engine


@pytest.mark.reference
def test_a_turned_picture_gives_the_same_boxes(serve: Serve, coco: str, reference: Path) -> None:
    upright = decode_image((reference / "photos" / "dog.jpg").read_bytes()).pixels
    twins = {
        orientation: image(serve, coco, png(np.ascontiguousarray(turn(upright)), orientation=orientation))
        for orientation, turn in TURNS.items()
    }
    assert len(twins[1]["detections"]) >= 3
    assert [orientation for orientation, twin in twins.items() if twin != twins[1]] == []


@pytest.mark.reference
def test_turned_pictures_of_other_programs_give_the_same_boxes(
    serve: Serve, coco: str, awkward: dict[str, bytes]
) -> None:
    """They were compressed separately, so scores differ a little, but not what is surely there."""
    names = ["hopper.jpg", *(f"hopper_orientation_{number}.jpg" for number in range(2, 9))]
    first, *twins = (image(serve, coco, awkward[name]) for name in names)
    sure = [found for found in first["detections"] if found["score"] > 0.4]
    assert sure
    for twin in twins:
        assert (twin["width"], twin["height"]) == (first["width"], first["height"])
        for found in sure:
            assert any(
                found["label"] == other["label"] and overlap(found["box"], other["box"]) > 0.9
                for other in twin["detections"]
            )


@pytest.mark.reference
def test_a_dog_is_a_dog(serve: Serve, coco: str, reference: Path) -> None:
    picture = (reference / "photos" / "dog.jpg").read_bytes()
    labels = {found["label"] for found in image(serve, coco, picture)["detections"]}
    assert labels >= {"dog", "bicycle"}
    drawn = ask(serve, picture, accept="image/jpeg", model=coco)
    assert decode_image(drawn.content).size_wh == (768, 576)
    it_sees_the_same_without_us(serve, coco, picture, score_threshold=0.1)


def overlap(one: dict[str, float], other: dict[str, float]) -> float:
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (one, other)]
    return shared / (sum(areas) - shared)
