"""API keys, straight in the database: also before the server may start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from app.cli.client import CommandError
from app.cli.home import require_home
from app.cli.terminal import say, show, show_table
from app.database.session import create_database_engine, create_sessions
from app.database.tables import utc_now
from app.database.upgrade import upgrade_database
from app.keys.revocation import revoke_key, without_secret
from app.keys.service import BRAND, Scope, create_key, list_keys
from app.settings import Settings, get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What or whom the key is for.")],
    scopes: Annotated[
        list[Scope] | None, typer.Option("--scope", help="May be given several times; default is all.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="The key expires after so many days.")] = None,
) -> None:
    """Create a key and print it; it cannot be shown again."""
    expires_at = utc_now() + timedelta(days=days) if days is not None else None
    with _session(get_settings()) as session:
        secret = create_key(session, name, scopes or list(Scope), expires_at=expires_at)
    say("Keep this key; it cannot be shown again:")
    show(secret)


@app.command("list")
def list_all() -> None:
    """List the keys; none of them can be read back."""
    with _session(get_settings()) as session:
        rows = [
            (
                key.id,
                key.prefix,
                key.name,
                ",".join(key.scopes),
                key.created_at.isoformat(timespec="seconds"),
                _state(key.revoked_at),
            )
            for key in list_keys(session)
        ]
    show_table(("ID", "PREFIX", "NAME", "SCOPES", "CREATED", "STATE"), rows)


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Prefix, id or name of the key, or the key itself.")],
) -> None:
    """Make a key worthless at once."""
    with _session(get_settings()) as session:
        revoked = revoke_key(session, key)
        if revoked is None:
            raise CommandError(
                f"there is no key {without_secret(key)} that is valid; `harrier keys list` shows all of them"
            )
        told = f"the key {revoked.name} ({BRAND}_{revoked.prefix}) is revoked"
    say(told)


def _state(revoked_at: object) -> str:
    return "revoked" if revoked_at is not None else "valid"


@contextmanager
def _session(settings: Settings) -> Iterator[Session]:
    """Open the database of the home, which must be there: only `serve` and `demo` make one."""
    if settings.database_url is None:
        require_home(settings)
    upgrade_database(settings)
    engine = create_database_engine(settings)
    try:
        with create_sessions(engine)() as session:
            yield session
    finally:
        engine.dispose()
