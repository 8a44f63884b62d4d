"""All commands together, and what happens when one fails."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from app.cli import analysis, bench, datasets, detect, jobs, keys, models, server, training, weights
from app.cli.client import CommandError
from app.cli.terminal import say
from app.database.upgrade import UnusableDatabaseError
from app.errors import HarrierError
from app.supervisor.home import CannotServeError

MODELS = "List, import, rename, alias, evaluate, profile, prune, reproduce and download models."

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Harrier: from a labelled image archive to an object detector behind a REST endpoint.",
)
server.add_to(app)
training.add_to(app)
detect.add_to(app)
app.command()(bench.bench)
app.add_typer(datasets.app, name="datasets", help="Upload and list datasets, read what was wrong with them.")
app.add_typer(jobs.app, name="jobs", help="Watch, cancel and resume jobs.")
analysis.add_to(models.app)
app.add_typer(models.app, name="models", help=MODELS)
app.add_typer(keys.app, name="keys", help="API keys of this home.")
app.add_typer(weights.app, name="weights", help="Pretrained weights of the original projects.")


def main() -> None:
    """Run the command that was typed; a failure is one message and exit status 1."""
    try:
        app()
    except (CommandError, CannotServeError, UnusableDatabaseError, HarrierError) as error:
        say(f"harrier: {error}")
        sys.exit(1)
    except ValidationError as error:
        say(f"harrier: {_settings_fault(error)}")
        sys.exit(1)


def _settings_fault(error: ValidationError) -> str:
    faults = (
        f"HARRIER_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    )
    return "a setting is not valid\n  " + "\n  ".join(faults)
