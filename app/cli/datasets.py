"""`harrier datasets`: upload a folder or an archive, list what is there, and what was wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Api
from app.cli.progress import follow_job
from app.cli.terminal import say, show, show_json, show_table
from app.cli.transfer import opened_archive, upload
from app.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("add")
def add(
    source: Annotated[Path, typer.Argument(help="A folder, or a zip, tar, tar.gz or tar.zst archive.")],
    name: Annotated[
        str | None, typer.Option(help="Default is that of the folder, or of the file without its ending.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="auto, coco, yolo, voc, or folders: one per class.")
    ] = "auto",
    validation_fraction: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, when the archive has none.")] = None,
    classes: Annotated[str | None, typer.Option(help="JSON: classes to merge, rename or drop.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the import has ended.")] = True,
) -> None:
    """Upload pictures with their labels; prints the id of the dataset."""
    api = Api(get_settings())
    given = {
        "name": name or _own_name(source),
        "format": form,
        "validation_fraction": validation_fraction,
        "seed": seed,
        "classes": classes,
    }
    data = {field: str(value) for field, value in given.items() if value is not None}
    with opened_archive(source) as (file, file_name):
        dataset = upload(api, "/datasets", field="archive", file=file, name=file_name, data=data)
    if wait:
        follow_job(api, dataset["job_id"])
        dataset = api.get(f"/datasets/{dataset['id']}")
        for split, counts in dataset["splits"].items():
            say(f"  {split}: {counts['images']} pictures, {counts['boxes']} boxes")
        _say_findings(api, dataset["id"])
    show(dataset["id"])


def _say_findings(api: Api, dataset_id: str) -> None:
    counts = api.get(f"/datasets/{dataset_id}/report")["counts"]
    if counts:
        found = ", ".join(f"{number} × {code}" for code, number in counts.items())
        say(f"  findings: {found}; see harrier datasets report {dataset_id}")


def _own_name(source: Path) -> str | None:
    """Return the name of a folder; that of an archive is made by the server."""
    return source.absolute().name if source.is_dir() else None


@app.command("list")
def list_all(
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List datasets, newest first."""
    rows = Api(get_settings()).pages("/datasets", limit=limit)
    if as_json:
        show_json(rows)
        return
    show_table(
        ("ID", "STATUS", "FORMAT", "PICTURES", "CLASSES", "NAME"),
        (
            (
                row["id"],
                row["status"],
                row["format"],
                sum(split["images"] for split in row["splits"].values()),
                len(row["classes"]),
                row["name"],
            )
            for row in rows
        ),
    )


@app.command("report")
def report(
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what was wrong with a dataset, and what was done about it."""
    found = Api(get_settings()).get(f"/datasets/{dataset}/report")
    if as_json:
        show_json(found)
        return
    columns = ("severity", "action", "code", "file", "where", "message")
    rows = [[finding[column] for column in columns] for finding in found["findings"]]
    if rows:
        show_table([column.upper() for column in columns], rows)
    if (only_counted := sum(found["counts"].values()) - len(rows)) > 0:
        say(f"  and {only_counted} more, which were only counted")
    elif not rows:
        say("  nothing was found wrong")
