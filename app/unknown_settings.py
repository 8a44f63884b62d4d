"""Variables that look like settings and are none: mostly a slip, which would pass in silence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from pydantic_settings import DotEnvSettingsSource

from app.settings import Settings

PREFIX = str(Settings.model_config.get("env_prefix"))
NO_SETTINGS = frozenset(
    {
        "HARRIER_BOOTSTRAP_KEY",  # Compose makes a secret of it
        "HARRIER_FAULT_POINT",
        "HARRIER_KEY",  # the examples of the documents keep a client's key in it
        "HARRIER_LEASH",
        "HARRIER_PUBLISH",  # where Compose publishes the API
        "HARRIER_REFERENCE",  # where the tests find real pictures
    }
)
"""What begins like a setting and is used otherwise."""


def unknown_settings(environment: Iterable[str]) -> list[str]:
    """Return one sentence for each name, in the environment or in `.env`, that is no setting."""
    written = (*environment, *DotEnvSettingsSource(Settings).env_vars)
    names = {name.upper() for name in written if name.upper().startswith(PREFIX)}
    return list(_sentences(sorted(names - NO_SETTINGS)))


def _sentences(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        given = name.removeprefix(PREFIX).lower()
        if given not in Settings.model_fields:
            near = difflib.get_close_matches(given, Settings.model_fields, n=1)
            yield f"{name} is no setting" + (f"; did you mean {PREFIX}{near[0].upper()}?" if near else "")
