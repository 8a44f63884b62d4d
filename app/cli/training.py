"""`harrier train`: the fields of `POST /train` as options, every other one with `--set a.b=c`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.client import Api, CommandError
from app.cli.progress import follow_job
from app.cli.terminal import say, show
from app.settings import get_settings


def add_to(app: typer.Typer) -> None:
    app.command()(train)


def train(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Id of a dataset that is ready.")],
    name: Annotated[str | None, typer.Option()] = None,
    architecture: Annotated[
        str | None, typer.Option(help="For example yolox-nano, nanodet-plus-m or resnet18.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="detect, or classify for a second stage; default by architecture.")
    ] = None,
    attribute: Annotated[
        str | None, typer.Option(help="Of the boxes, for a classifier; default is their class.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="random, pretrained, or a model id.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[str | None, typer.Option(help="A number, or auto.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of the square network input, pixels.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, an accelerator by number: 0, or several: 0,1")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That share each batch; default is one per device.")
    ] = None,
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Batch norm sees the pictures of all processes.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field: --set optimizer.lr=0.01"),
    ] = None,
    watch: Annotated[bool, typer.Option(help="Wait, with a progress bar, until it has ended.")] = False,
) -> None:
    """Queue a training; prints the id of the job, or with --watch that of the model."""
    given = {
        "dataset_id": dataset,
        "name": name,
        "task": task,
        "architecture": architecture,
        "attribute": attribute,
        "init": init,
        "epochs": epochs,
        "batch_size": _number_or_text(batch_size) if batch_size is not None else None,
        "input_size": input_size,
        "device": device,
        "processes": processes,
        "sync_bn": sync_bn or None,
        "seed": seed,
    }
    body = {field: value for field, value in given.items() if value is not None}
    for assignment in settings or ():
        _assign(body, assignment)
    api = Api(get_settings())
    job = api.post("/train", json=body, called={"dataset_id": "DATASET"})
    if not watch:
        say(f"queued; watch it with: harrier jobs watch {job['id']}")
        show(job["id"])
        return
    show(follow_job(api, job["id"])["result"]["model_id"])


def _assign(body: dict[str, Any], assignment: str) -> None:
    """Put `a.b=c` into nested objects; c is JSON where it reads as such, else text."""
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise CommandError(f"--set wants FIELD=VALUE, for example optimizer.lr=0.01, not {assignment!r}")
    *outer, last = path.split(".")
    place = body
    for name in outer:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise CommandError(f"--set {assignment}: {name} already has a value")
        place = inner
    place[last] = _number_or_text(text)


def _number_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
