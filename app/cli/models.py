"""`harrier models`: what can detect, by which name, and how to take it away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Api, CommandError
from app.cli.progress import follow_job
from app.cli.terminal import say, show, show_json, show_table
from app.cli.transfer import download, upload
from app.settings import get_settings

app = typer.Typer(no_args_is_help=True)
ModelId = Annotated[str, typer.Argument(metavar="MODEL")]
SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pth", "openvino": ".zip"}


@app.command("list")
def list_all(
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models, newest first."""
    rows = Api(get_settings()).pages("/models", limit=limit)
    if as_json:
        show_json(rows)
        return
    show_table(
        ("ID", "ALIAS", "ARCHITECTURE", "CLASSES", "AP", "AP50", "ACCURACY", "NAME", ""),
        (
            (
                row["id"],
                row["alias"],
                row["architecture"],
                len(row["classes"]),
                _metric(row, "ap"),
                _metric(row, "ap50"),
                _metric(row, "accuracy"),
                row["name"],
                "answers when none is named" if row.get("is_default") else "",
            )
            for row in rows
        ),
    )


@app.command("show")
def show_one(model: ModelId) -> None:
    """Print everything about a model, as JSON."""
    show_json(Api(get_settings()).get(f"/models/{model}"))


@app.command("import")
def import_weights(
    weights: Annotated[Path, typer.Argument(help=".pth, .ckpt, .safetensors or .onnx")],
    name: Annotated[str | None, typer.Option(help="Default is the name of the file.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Where the file does not tell it.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="JSON list; default is COCO's of 80, and ImageNet's of 1000.")
    ] = None,
    input_convention: Annotated[
        str | None, typer.Option(help="A name such as yolox-legacy, nanodet-keep-ratio or imagenet, or JSON.")
    ] = None,
) -> None:
    """Make a model from weights of the original projects or of torchvision; prints its id."""
    if not weights.is_file():
        raise CommandError(f"there is no file at {weights.absolute()}")
    given = {
        "name": name or weights.stem,
        "architecture": architecture,
        "classes": classes,
        "input_convention": input_convention,
    }
    show(import_file(Api(get_settings()), weights, given))


def import_file(api: Api, weights: Path, fields: dict[str, str | None]) -> str:
    """Upload weights, wait for the import and return the id of the model."""
    data = {field: value for field, value in fields.items() if value is not None}
    with weights.open("rb") as file:
        job = upload(api, "/models/import", field="weights", file=file, name=weights.name, data=data)
    model_id: str = follow_job(api, job["id"])["result"]["model_id"]
    return model_id


@app.command("rename")
def rename(model: ModelId, name: str) -> None:
    """Give a model another name."""
    Api(get_settings()).patch(f"/models/{model}", json={"name": name})
    say(f"model {model} is called {name!r}")


@app.command("alias")
def alias(
    model: ModelId,
    name: Annotated[
        str | None, typer.Argument(help="For example production; without it the alias goes.")
    ] = None,
) -> None:
    """Give a model an alias, which any other model loses; or take it away."""
    Api(get_settings()).patch(f"/models/{model}", json={"alias": name})
    say(f"model {model} is now {name!r}" if name else f"model {model} has no alias")


@app.command("reproduce")
def reproduce(
    model: ModelId,
    device: Annotated[str | None, typer.Option(help="auto, cpu or a number; default is as before.")] = None,
) -> None:
    """Train a model again and compare the weights; prints the id of the new model."""
    api = Api(get_settings())
    job = api.post(f"/models/{model}/reproduce", json={} if device is None else {"device": device})
    result = follow_job(api, job["id"])["result"]
    outcome = result["reproduction"]
    for line in (outcome["summary"], *outcome["differences"]):
        say(line)
    show(result["model_id"])


@app.command("download")
def download_weights(
    model: ModelId,
    form: Annotated[str, typer.Option("--format", help="safetensors, onnx, …")] = "safetensors",
    output: Annotated[Path | None, typer.Option(dir_okay=False)] = None,
) -> None:
    """Take the weights away; prints the path of the file."""
    target = output or Path(f"{model}{SUFFIXES.get(form, '.' + form)}")
    download(Api(get_settings()), f"/models/{model}/weights", target, format=form)
    show(str(target))


def _metric(row: dict[str, Any], name: str) -> str:
    value = (row["metrics"] or {}).get(name)
    return f"{value:.3f}" if isinstance(value, int | float) else ""
