"""`harrier jobs`: what runs, how far it is, and how to stop it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api
from app.cli.progress import facts, follow_job
from app.cli.terminal import say, show, show_json, show_table
from app.settings import get_settings

app = typer.Typer(no_args_is_help=True)
JobId = Annotated[str, typer.Argument(metavar="JOB")]


@app.command("list")
def list_all(
    limit: Annotated[int, typer.Option(min=1)] = 20,
    kind: Annotated[str | None, typer.Option(help="For example train or dataset-import.")] = None,
    status: Annotated[str | None, typer.Option(help="For example running or failed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List jobs, newest first."""
    rows = Api(get_settings()).pages("/jobs", limit=limit, kind=kind, status=status)
    if as_json:
        show_json(rows)
        return
    show_table(
        ("ID", "KIND", "STATUS", "STAGE", "NAME", "FACTS"),  # the last one may be a long sentence
        ((row["id"], row["kind"], row["status"], row["stage"], row["name"], _facts(row)) for row in rows),
    )


def _facts(job: dict[str, Any]) -> str:
    """Return what a job measured, and in one line why it failed."""
    failure = " ".join(job["failure"]["message"].split()) if job["failure"] else ""
    return "  ".join(part for part in (facts(job), failure) if part)


@app.command("show")
def show_one(job: JobId) -> None:
    """Print everything about a job, as JSON."""
    show_json(Api(get_settings()).get(f"/jobs/{job}"))


@app.command("watch")
def watch(
    job: JobId, log: Annotated[bool, typer.Option("--log", help="Also print the job's log.")] = False
) -> None:
    """Show a progress bar until the job has ended; exit status 1 when it did not succeed."""
    ended = follow_job(Api(get_settings()), job, log=log)
    show_json(ended["result"])


@app.command("cancel")
def cancel(job: JobId) -> None:
    """Stop a job; a training keeps its last checkpoint."""
    _ask(job, "cancel")


@app.command("resume")
def resume(job: JobId) -> None:
    """Go on with a failed or cancelled training from its last checkpoint."""
    _ask(job, "resume")


@app.command("finish")
def finish(job: JobId) -> None:
    """End a running training now and publish its best weights so far."""
    _ask(job, "finish")


@app.command("log")
def log(job: JobId) -> None:
    """Print the log of a job."""
    show(Api(get_settings()).send("GET", f"/jobs/{job}/log").text.rstrip("\n"))


def _ask(job: str, what: str) -> None:
    answer = Api(get_settings()).post(f"/jobs/{job}/{what}")
    say(f"job {job}: {answer['status']}")
