"""`harrier demo`: the shortest proof that everything works, from an empty folder to an annotated picture."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from app.cli.client import Api, CommandError
from app.cli.progress import follow_job
from app.cli.terminal import say, show
from app.cli.transfer import opened_archive, upload
from app.settings import Settings
from app.supervisor.leash import PARENT
from app.supervisor.programs import LEASH

READY_S = 90.0
STOP_S = 90.0
LOOK_S = 0.25
GOOD_AP50 = 0.9
CLEAR = {"nms_iou": 0.45}
"""For eyes, fewer overlapping boxes than a measurement wants."""
TRAINING = {
    "name": "demo",
    "architecture": "yolox-nano",
    "init": "random",
    "input_size": 256,
    "seed": 0,
}


class Stopwatch:
    """Says how long each part took."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._parts: list[tuple[str, float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        say(f"· {name}")
        began = time.monotonic()
        yield
        self._parts.append((name, time.monotonic() - began))

    def lines(self) -> Iterator[str]:
        for name, seconds in self._parts:
            yield f"{seconds:7.1f} s  {name}"
        yield f"{time.monotonic() - self._started:7.1f} s  in all"


def run_demo(output: Path, *, epochs: int, num_images: int) -> int:
    """Run the demonstration; return the exit status: 0 only when the model is good."""
    watch = Stopwatch()
    signal.signal(signal.SIGTERM, _end_in_order)
    with tempfile.TemporaryDirectory(prefix="harrier-demo-") as folder:
        with watch.part("making a dataset of shapes on textured grounds"):
            pictures = _synthetic_dataset(Path(folder) / "shapes", num_images)
        with _server(Path(folder) / "home", watch) as api:
            metrics = _train_and_detect(api, pictures, output, watch, epochs=epochs)
    for line in watch.lines():
        say(line)
    show(f"AP {metrics['ap']:.3f}  AP50 {metrics['ap50']:.3f}  annotated picture: {output.absolute()}")
    if metrics["ap50"] < GOOD_AP50:
        say(f"AP50 is below {GOOD_AP50}: something is wrong")
        return 1
    return 0


def _train_and_detect(
    api: Api, pictures: Path, output: Path, watch: Stopwatch, *, epochs: int
) -> dict[str, Any]:
    with watch.part("uploading and checking it"), opened_archive(pictures) as (file, name):
        sent = upload(api, "/datasets", field="archive", file=file, name=name, data={"name": "shapes"})
        follow_job(api, sent["job_id"])
    with watch.part(f"training YOLOX-nano from scratch, {epochs} epochs"):
        job = api.post("/train", json={**TRAINING, "dataset_id": sent["id"], "epochs": epochs})
        result = follow_job(api, job["id"])["result"]
    with watch.part("detecting in a picture that was not trained on"):
        picture = _validation_picture(api, sent["id"])
        output.write_bytes(_annotated(api, picture, result["model_id"]))
    metrics: dict[str, Any] = api.get(f"/models/{result['model_id']}")["metrics"]
    return metrics


def _validation_picture(api: Api, dataset_id: str) -> bytes:
    """Return the picture with the most boxes among the first of the validation split."""
    page = api.get(f"/datasets/{dataset_id}/images", params={"split": "val", "limit": 50})
    richest = max(page["items"], key=lambda image: len(image["boxes"]))
    say(f"  it has {len(richest['boxes'])} labelled shapes")
    return api.send("GET", f"/datasets/{dataset_id}/images/{richest['id']}").content


def _annotated(api: Api, picture: bytes, model_id: str) -> bytes:
    """Say what was found in a picture, and return it with the detections drawn."""
    options: dict[str, Any] = {"content": picture, "params": {"model": model_id, **CLEAR}}
    headers = {"Content-Type": "application/octet-stream"}
    found = api.post("/detect", headers=headers, **options)["images"][0]["detections"]
    for detection in found:
        say(f"  {detection['label']} {detection['score']:.2f}")
    return api.send("POST", "/detect", headers={**headers, "Accept": "image/jpeg"}, **options).content


def _synthetic_dataset(folder: Path, num_images: int) -> Path:
    command = [sys.executable, "-m", "detection.data.synthetic", str(folder), "--images", str(num_images)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _end_in_order(number: int, frame: FrameType | None) -> None:
    """Unwind, so that the server is stopped and the folder removed."""
    sys.exit(128 + number)


@contextmanager
def _server(home: Path, watch: Stopwatch) -> Iterator[Api]:
    """Run `harrier serve` on a free port; when the block ends nothing of it is left."""
    settings = Settings(home=home, port=_free_port(), _env_file=None)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HARRIER_")},
        "HARRIER_HOME": str(home),
        "HARRIER_PORT": str(settings.port),
        PARENT: str(os.getpid()),
    }
    log = home.with_name("serve.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*LEASH, sys.executable, "-m", "app.cli", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches us alone, and we stop it in order
        )
        try:
            with watch.part("starting the server"):
                api = Api(settings)
                _wait_until_ready(api, process, log)
            yield api
        finally:
            with watch.part("stopping the server"):
                _stop(process)


def _wait_until_ready(api: Api, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandError(f"the server ended:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            if api.ask("GET", "/readyz").is_success:
                return
        except CommandError:
            pass  # nobody listens yet
        time.sleep(LOOK_S)
    raise CommandError(f"the server was not ready within {READY_S:.0f} s:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
