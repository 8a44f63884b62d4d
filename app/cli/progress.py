"""A job's progress on the terminal: only what the job itself says, as it says it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import httpx2
from rich.progress import BarColumn, Progress, TextColumn

from app.cli.client import Api, CommandError
from app.cli.gauge import PlainLines
from app.cli.terminal import notes, say

ENDED = frozenset({"succeeded", "failed", "cancelled"})
POLL_S = 1.0
FORMS = (
    ("loss", "loss {:.3f}"),
    ("ap", "AP {:.3f}"),
    ("ap50", "AP50 {:.3f}"),
    ("accuracy", "accuracy {:.3f}"),
)
SHORTEST_S = 0.3
"""Between two looks: a training tells more than a person can read."""
QUIET_S = 20.0
"""A stream that is silent for so long, without even a heartbeat, counts as broken."""


def follow_job(api: Api, job_id: str, *, log: bool = False) -> dict[str, Any]:
    """Show how far a job is until it has ended, and return it.

    Raises:
        CommandError: it failed or was cancelled.
    """
    shown_lines = 0
    states = job_states(api, job_id)
    first = next(states)  # a job that does not exist gets no bar
    with _gauge() as show_job:
        for job in chain((first,), states):
            show_job(job)
            if log:
                shown_lines = _print_log(api, job_id, shown_lines)
    _summarise(job)
    return job


def job_states(api: Api, job_id: str) -> Iterator[dict[str, Any]]:
    """Yield the job again and again, as it changes, until it has ended."""
    for _ in _moments(api, job_id):
        job: dict[str, Any] = api.get(f"/jobs/{job_id}")
        yield job
        while job["status"] == "queued":  # what it waits for changes without an event of its own
            time.sleep(POLL_S)
            job = api.get(f"/jobs/{job_id}")
            yield job
        if job["status"] in ENDED:
            return


def _moments(api: Api, job_id: str) -> Iterator[None]:
    """Yield whenever the job may have changed: told by its stream, or every second where that breaks."""
    while True:
        yield
        try:
            with api.events(f"/jobs/{job_id}/events", quiet_s=QUIET_S) as events:
                yield from _unhurried(events)
        except httpx2.HTTPError:
            time.sleep(POLL_S)


def _unhurried(events: Iterator[httpx2.ServerSentEvent]) -> Iterator[None]:
    last = time.monotonic()
    for event in events:
        now = time.monotonic()
        if event.event == "status" or now - last >= SHORTEST_S:
            last = now
            yield


@contextmanager
def _gauge() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what shows a job: as a bar in a terminal, as lines elsewhere."""
    if not notes.is_terminal:
        yield _lines()
        return
    with Progress(
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[facts]}", markup=False),
        console=notes,
    ) as progress:
        task = progress.add_task("", total=1.0, facts="")
        yield lambda job: progress.update(
            task, description=_stage(job), completed=_fraction(job), facts=facts(job)
        )


def _lines() -> Callable[[dict[str, Any]], None]:
    lines, shown = PlainLines(), ""

    def show_job(job: dict[str, Any]) -> None:
        nonlocal shown
        stage = _stage(job)
        line = f"  {stage:<12} {_fraction(job):>4.0%}  {facts(job)}"
        lines.offer(line.rstrip(), at_once=stage != shown)
        shown = stage

    return show_job


def _fraction(job: dict[str, Any]) -> float:
    return 1.0 if job["status"] == "succeeded" else job["progress"].get("fraction") or 0.0


def _stage(job: dict[str, Any]) -> str:
    stage: str = job["stage"] if job["status"] in {"running", "queued"} else job["status"]
    return stage


def facts(job: dict[str, Any]) -> str:
    """Return what a job measured in one line: epoch, loss, AP or accuracy, time left."""
    progress, metrics = job["progress"], job["metrics"]
    parts = []
    if progress.get("epoch") is not None and progress.get("epochs"):
        parts.append(f"epoch {progress['epoch']}/{progress['epochs']}")
    for name, form in FORMS:
        if isinstance(metrics.get(name), int | float):
            parts.append(form.format(metrics[name]))
    if job["eta_s"] and job["status"] not in ENDED:
        parts.append(f"{_duration(round(job['eta_s']))} left")
    if job["queue_position"]:
        parts.append(f"number {job['queue_position']} in the queue{_why(job)}")
    return "  ".join(parts)


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes}:{seconds:02d}"


def _why(job: dict[str, Any]) -> str:
    """Return what a queued job waits for; a server of an older version does not say it."""
    waiting = job.get("waiting_for")
    return f": {waiting['message']}" if waiting else ""


def _print_log(api: Api, job_id: str, shown: int) -> int:
    lines = api.send("GET", f"/jobs/{job_id}/log").text.splitlines()
    for line in lines[shown:]:
        say(line)
    return len(lines)


def _summarise(job: dict[str, Any]) -> None:
    if job["status"] == "succeeded":
        return
    failure = job["failure"]
    if failure is None:
        raise CommandError(f"the job {job['id']} was {job['status']}")
    raise CommandError(f"the job {job['id']} {job['status']}: {failure['message']}  [{failure['code']}]")
