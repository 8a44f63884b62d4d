"""`harrier models profile`, `prune` and `evaluate`: what a model costs, can do without, and is worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from app.cli.client import Api, CommandError, as_options
from app.cli.passes import TtaFlips, TtaScales, wanted_passes
from app.cli.progress import follow_job
from app.cli.terminal import show, show_json, show_table
from app.settings import get_settings

ModelId = Annotated[str, typer.Argument(metavar="MODEL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, or an accelerator by number: 0")]
CALLED = as_options(
    "device",
    "input_size",
    "batch_size",
    "runs",
    "type",
    "amount",
    "scope",
    "finetune_epochs",
    "split",
    "name",
)
"""What fields of the bodies are called here."""


def add_to(app: typer.Typer) -> None:
    app.command()(profile)
    app.command()(prune)
    app.command()(evaluate)


def profile(
    model: ModelId,
    device: Device = "auto",
    input_size: Annotated[
        str | None, typer.Option(help="640, or height x width: 640x320; default is the model's own.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each part.")] = 20,
    half: Annotated[bool, typer.Option(help="Compute in half precision.")] = False,
    kind: Annotated[str | None, typer.Option("--type", help="List modules of a class: Conv2d")] = None,
    verbose: Annotated[bool, typer.Option(help="A row for every parameter tensor as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count and time a model, part by part; waits for the job and prints the table."""
    body = {
        "device": device,
        "input_size": None if input_size is None else _size(input_size),
        "batch_size": batch_size,
        "runs": runs,
        "half": half,
        "type": kind,
        "verbose": verbose,
    }
    result = _result(f"/models/{model}/profile", body, CALLED)
    if as_json:
        show_json(result)
        return
    _show_profile(result)


def prune(
    model: ModelId,
    amount: Annotated[float, typer.Option(help="The fraction to remove, 0.01 to 0.99.")] = 0.3,
    scope: Annotated[str, typer.Option(help="layer, global or channels")] = "layer",
    finetune_epochs: Annotated[int, typer.Option(min=0, help="Epochs of training afterwards.")] = 0,
    dataset: Annotated[
        str | None, typer.Option(help="To measure on; default is that of the model's training.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test")] = "val",
    device: Device = "auto",
    name: Annotated[str | None, typer.Option(help="Of the new model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a smaller or sparser model, and print what that cost; waits for the job."""
    body = {
        "amount": amount,
        "scope": scope,
        "finetune_epochs": finetune_epochs,
        "dataset_id": dataset,
        "split": split,
        "device": device,
        "name": name,
    }
    result = _result(f"/models/{model}/prune", body, {**CALLED, "dataset_id": "--dataset"})
    if as_json:
        show_json(result)
        return
    show_table(("", "BEFORE", "AFTER"), _comparison(result))
    show(result["model_id"])


def evaluate(
    model: ModelId,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Id of a dataset that is ready.")],
    split: Annotated[str, typer.Option(help="train, val or test")] = "val",
    device: Device = "auto",
    tta: Annotated[
        bool, typer.Option("--tta", help="Of a detector: measure with test-time augmentation as well.")
    ] = False,
    tta_scales: TtaScales = None,
    tta_flips: TtaFlips = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a split of a dataset; waits for the job and prints the metrics."""
    passes = wanted_passes(tta, tta_scales, tta_flips)
    body = {
        "dataset_id": dataset,
        "split": split,
        "device": device,
        "tta": None if passes is None else json.loads(passes),
    }
    called = {**CALLED, "dataset_id": "DATASET"}
    evaluation_id = _result(f"/models/{model}/evaluate", body, called)["evaluation_id"]
    found = Api(get_settings()).get(f"/evaluations/{evaluation_id}")
    if as_json:
        show_json(found)
        return
    show_table(*_measured(found))
    show(found["id"])


def _measured(found: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and rows: one column, or with passes three."""
    if found["tta"] is None:
        numbers = {name: value for name, value in found["metrics"].items() if isinstance(value, float)}
        return ("METRIC", "VALUE"), [(name, f"{value:.4f}") for name, value in numbers.items()]
    ways = ("plain", "augmented", "difference")
    rows = [
        (name, *(_decimals(found["tta"][way][name], 5 if way == "difference" else 4) for way in ways))
        for name in found["tta"]["plain"]
    ]
    return ("METRIC", *(way.upper() for way in ways)), rows


def _result(path: str, body: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Any]:
    api = Api(get_settings())
    given = {field: value for field, value in body.items() if value is not None}
    job = api.post(path, json=given, called=called)
    result: dict[str, Any] = follow_job(api, job["id"])["result"]
    return result


def _size(text: str) -> int | list[int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise CommandError(f"--input-size wants 640, or height x width as 640x320, not {text!r}")
    numbers = [int(side) for side in sides]
    return numbers[0] if len(numbers) == 1 else numbers


def _show_profile(result: Mapping[str, Any]) -> None:
    show_table(("FACT", "VALUE"), _facts(result))
    show("")
    columns = ("PART", "PARAMETERS", "GFLOPS", "FORWARD MS", "BACKWARD MS", "INPUT", "OUTPUT")
    show_table(columns, map(_part, result["parts"]))
    if result["modules"] is not None:
        show("")
        rows = ((row["index"], row["class"], row["name"]) for row in result["modules"])
        show_table(("INDEX", "CLASS", "NAME"), rows)
    if result["tensors"] is not None:
        show("")
        columns = ("INDEX", "GRADIENT", "COUNT", "SHAPE", "MEAN", "STD", "NAME")
        show_table(columns, map(_tensor, result["tensors"]))


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name in ("layers", "parameters", "gradients"):
        yield name, f"{result[name]:,}"
    yield "sparsity", f"{result['sparsity']:.4f}"
    yield "GFLOPs", _decimals(result["gflops"], 3)
    yield "GFLOPs, extrapolated", _decimals(result["gflops_extrapolated"], 3)
    yield "input", f"{_shape([result['batch_size'], 3, *result['input_size']])} on {result['device']}"
    memory = result["memory"]
    peak = memory["peak_bytes"]
    yield "peak memory", "unknown" if peak is None else f"{peak / 1e6:.1f} MB: {memory['measured']}"


def _part(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        row["part"],
        f"{row['parameters']:,}",
        _decimals(row["gflops"], 3),
        _time(row, "forward_ms"),
        _time(row, "backward_ms"),
        " ".join(map(_shape, row["input_shapes"])),
        " ".join(map(_shape, row["output_shapes"])),
    )


def _tensor(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        row["index"],
        "yes" if row["gradient"] else "no",
        row["count"],
        _shape(row["shape"]),
        f"{row['mean']:.3g}",
        "" if row["std"] is None else f"{row['std']:.3g}",
        row["name"],
    )


def _comparison(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    def both(name: str, pair: Mapping[str, Any], form: str) -> tuple[str, str, str]:
        before, after = (
            "" if pair[when] is None else format(pair[when], form) for when in ("before", "after")
        )
        return name, before, after

    yield both("parameters", result["parameters"], ",")
    yield both("GFLOPs", result["gflops"], ".3f")
    yield both("sparsity", result["sparsity"], ".4f")
    yield both("AP", result["ap"], ".4f")
    for backend, pair in result["latency_ms"].items():
        yield both(f"{backend} ms", pair, ".1f")
    for form, pair in result["file_bytes"].items():
        yield both(f"{form} bytes", pair, ",")


def _time(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    deviation = row[f"{name}_std"]  # a single run has none
    return f"{row[name]:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _decimals(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
