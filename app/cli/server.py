"""Commands of the server itself: serve, demo, api, migrate, settings, version."""

from __future__ import annotations

import os
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from sqlalchemy import make_url

from app.cli.client import CommandError
from app.cli.demo import run_demo
from app.cli.home import require_home
from app.cli.terminal import say, show, show_json
from app.database.revision import is_current
from app.database.session import create_database_engine, create_sessions
from app.database.upgrade import upgrade_database
from app.keys.service import bootstrap_key, check_exposure
from app.settings import Settings, get_settings
from app.storage import open_storage
from app.supervisor.serve import serve as serve_everything
from app.unknown_settings import unknown_settings


class StorageSettingError(CommandError):
    """The setting is no place for files."""


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(demo)
    app.command(hidden=True)(api)
    app.command(hidden=True)(migrate)
    app.command("settings")(list_settings)
    app.command()(version)


def serve(
    workers: Annotated[bool, typer.Option(help="Also run one worker per queue on this machine.")] = True,
) -> None:
    """Start everything on this machine: broker, API, engine and workers. Ctrl-C stops it."""
    _warn_of_unknown_settings()
    raise typer.Exit(serve_everything(get_settings(), say, prepare=prepare, workers=workers))


def _warn_of_unknown_settings() -> None:
    for sentence in unknown_settings(os.environ):
        say(sentence)


def prepare(settings: Settings) -> None:
    """Bring the database up to date and make sure that an open server listens at home only."""
    _see_to_storage(settings)
    upgrade_database(settings)
    _see_to_keys(settings)


def _see_to_storage(settings: Settings) -> None:
    try:
        open_storage(settings)
    except ValueError as error:
        raise StorageSettingError(_no_storage(settings, error)) from None
    except OSError as error:
        raise CommandError(_no_storage(settings, error)) from None


def _no_storage(settings: Settings, error: Exception) -> str:
    return f"the files cannot be kept at {settings.storage_address}: {error}"


def _see_to_keys(settings: Settings) -> None:
    """Store the first key if a file holds one, and refuse to serve others without any."""
    engine = create_database_engine(settings)
    try:
        sessions = create_sessions(engine)
        bootstrap_key(settings, sessions)
        check_exposure(settings, sessions)
    finally:
        engine.dispose()


def demo(
    output: Annotated[Path, typer.Option(help="Where the annotated picture goes.", dir_okay=False)] = Path(
        "harrier-demo.jpg"
    ),
    epochs: Annotated[int, typer.Option(min=1, max=1000)] = 12,
    images: Annotated[
        int, typer.Option(min=10, max=100_000, help="Pictures to make; a fifth of them is measured on.")
    ] = 400,
) -> None:
    """Prove that everything works: make a small dataset, train on it, detect, and show how well it went."""
    raise typer.Exit(run_demo(output, epochs=epochs, num_images=images))


def api() -> None:
    """Run the API alone; database, broker, engine and workers run elsewhere."""
    # All routes and their libraries take a second to load, which no other command should pay.
    from app.server import run_api

    settings = get_settings()
    require_home(settings)
    _require_schema(settings)
    _see_to_keys(settings)
    run_api(settings)


def migrate() -> None:
    """Bring the database up to date, and do nothing else."""
    settings = get_settings()
    if settings.database_url is None:
        require_home(settings)
    upgrade_database(settings)
    say("the database is up to date")


def _require_schema(settings: Settings) -> None:
    engine = create_database_engine(settings)
    try:
        current = is_current(engine)
    finally:
        engine.dispose()
    if not current:
        where = make_url(settings.database_address).render_as_string(hide_password=True)
        raise CommandError(f"the database {where} does not have this version's schema: run `harrier migrate`")


def list_settings(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every setting with its value and its meaning; secrets are not shown."""
    _warn_of_unknown_settings()
    settings = get_settings()
    rows = [
        {
            "name": f"HARRIER_{name.upper()}",
            "value": _masked(getattr(settings, name)),
            "default": _masked(field.get_default(call_default_factory=False)),
            "description": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        changed = "" if row["value"] == row["default"] else f"   (default {row['default']})"
        show(f"{row['name']}={row['value']}{changed}")
        show(f"    {row['description']}")
    show(f"\nhome: {settings.home_path}")


def version() -> None:
    """Print the version."""
    show(installed_version("harrier"))


def _masked(value: Any) -> str:
    """Return a value as text, without what must stay secret."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    text = str(value)
    return make_url(text).render_as_string(hide_password=True) if "://" in text else text
