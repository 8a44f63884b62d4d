"""All commands together, and what happens when one fails."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from app.cli import analysis, bench, datasets, detect, jobs, keys, models, server, training, weights
from app.cli.client import CommandError
from app.cli.server import StorageSettingError
from app.cli.terminal import say
from app.database.upgrade import DatabaseSettingError, UnusableDatabaseError
from app.errors import HarrierError
from app.keys.service import BootstrapKeyError, ExposureError
from app.settings_faults import settings_fault
from app.supervisor.home import CannotServeError, HomeSettingError

MODELS = "List, import, rename, alias, evaluate, profile, prune, reproduce and download models."

UNUSABLE_SETTINGS = (
    ExposureError,
    BootstrapKeyError,
    HomeSettingError,
    StorageSettingError,
    DatabaseSettingError,
)
"""What no later try mends, unlike a port that is taken or a database that is away."""


class Commands(TyperGroup):
    """Says what is wrong with an option without the words with which pydantic, that Typer asks, begins."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    cls=Commands,
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
    """Run the command that was typed; a failure is one message and an exit status.

    That is 1, and 78 (EX_CONFIG) where a setting cannot work, so that service managers do not try again.
    """
    try:
        app()
    except UNUSABLE_SETTINGS as error:
        _end(str(error), os.EX_CONFIG)
    except ValidationError as error:
        _end(settings_fault(error), os.EX_CONFIG)
    except (CommandError, CannotServeError, UnusableDatabaseError, HarrierError) as error:
        _end(str(error), 1)


def _end(message: str, status: int) -> NoReturn:
    say(f"harrier: {message}")
    sys.exit(status)
