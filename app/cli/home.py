"""The home as the commands see it that only use one; `serve` and `demo` make it."""

from __future__ import annotations

from app.cli.client import CommandError
from app.settings import Settings


def require_home(settings: Settings) -> None:
    """Raise CommandError, with the path that was looked at, when there is no home."""
    if not settings.home_path.is_dir():
        raise CommandError(
            f"there is no home at {settings.home_path}; `harrier serve` makes one, HARRIER_HOME names another"
        )
