"""`harrier bench`: measure every way to serve a model on this machine, and pin the best."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.cli.client import Api, CommandError, as_options
from app.cli.progress import follow_job
from app.cli.terminal import say
from app.settings import get_settings

WIDEST = 200
"""Characters of a line of the table."""
UNMET = 3
"""The exit status when nothing reaches the wishes; 1 is a failure, 2 a command that was typed wrongly."""
CALLED = {
    **as_options("p95_ms", "rps", "max_ap_drop", "split", "device", "seconds"),
    "dataset_id": "--dataset",
}
"""What fields of the body are called here."""


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of a detector.")],
    p95_ms: Annotated[
        float | None, typer.Option(help="95 of 100 pictures must be done so soon, in milliseconds.")
    ] = None,
    rps: Annotated[float | None, typer.Option(help="So many pictures a second must be served.")] = None,
    max_ap_drop: Annotated[float | None, typer.Option(help="How much less AP is allowed: 0.005")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Id of the one to measure on; default is that of the training."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test")] = "val",
    device: Annotated[str, typer.Option(help="auto, cpu, or an accelerator by number: 0")] = "auto",
    seconds: Annotated[float, typer.Option(help="How long each way is timed.")] = 2.0,
    pin: Annotated[bool, typer.Option(help="Serve the model in the best way from then on.")] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write everything into this file.")
    ] = None,
) -> None:
    """Measure every way to serve a model, and print the table; waits for the job.

    The exit status is 3 when no way to serve reaches the wishes.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {json_file.absolute().parent} to write {json_file.name} into")
    wishes = {"p95_ms": p95_ms, "rps": rps, "max_ap_drop": max_ap_drop, "dataset_id": dataset}
    body = {
        **{name: value for name, value in wishes.items() if value is not None},
        "split": split,
        "device": device,
        "seconds": seconds,
        "pin": pin,
    }
    api = Api(get_settings())
    job = api.post(f"/models/{model}/plan", json=body, called=CALLED)
    plan = follow_job(api, job["id"])["result"]
    if json_file is not None:
        json_file.write_text(json.dumps(plan, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _show(plan)
    if plan["winner"] is None:
        raise typer.Exit(UNMET)


def _show(plan: Mapping[str, Any]) -> None:
    table = _table(plan)
    # As wide as it is: a column that is cut off cannot be read, and lines can be searched.
    width = Console(width=WIDEST).measure(table).maximum
    Console(width=width, highlight=False).print(table)
    for line in _outcome(plan):
        say(line)


def _table(plan: Mapping[str, Any]) -> Table:
    """Return the ways to serve, the fastest first; the best is marked."""
    table = Table(title=f"{plan['device']}: {plan['processor']}, {plan['cores']} cores", title_justify="left")
    for heading in ("", "backend"):
        table.add_column(heading, no_wrap=True)
    for heading in ("streams", "batch", "pictures/s", "p50 ms", "p95 ms", "alone ms", "AP", "same"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(plan["rows"], key=lambda row: -row["pictures_per_s"]):
        table.add_row(*_cells(row, best=row == plan["winner"]))
    return table


def _cells(row: Mapping[str, Any], *, best: bool) -> Iterator[str]:
    yield "*" if best else ("" if row["agrees"] else "differs")
    yield f"{row['backend']} {row['precision']}"
    yield f"{row['streams']} x {row['threads']}"
    yield str(row["batch_size"])
    for name in ("pictures_per_s", "p50_ms", "p95_ms", "alone_p50_ms"):
        yield f"{row[name]:.1f}"
    yield "" if row["ap"] is None else f"{row['ap']:.4f}"
    yield f"{row['same_boxes']:.1%}"


def _outcome(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan.get("beside") is not None:  # older servers do not look
        yield plan["beside"]
    if plan["pinned"] is not None:
        yield f"the model is served with {_named(plan['pinned'])} from now on"
    elif plan["winner"] is not None:
        yield f"best is {_named(plan['winner'])}; nothing was pinned"
    yield from plan["unmet"]
    if plan["closest"] is not None:
        yield f"closest is {_named(plan['closest'])}; nothing was pinned"


def _named(shape: Mapping[str, Any]) -> str:
    threads = f"{shape['threads']} thread{'' if shape['threads'] == 1 else 's'}"
    return (
        f"{shape['backend']} {shape['precision']}, {shape['streams']} x {threads}, "
        f"batches of {shape['batch_size']}"
    )
