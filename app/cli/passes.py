"""The options of test-time augmentation: the passes that a command asks for."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli.client import CommandError

TtaScales = Annotated[
    str | None, typer.Option(help="Look once at each of these scales instead: 1,1.3", metavar="SCALES")
]
TtaFlips = Annotated[
    str | None, typer.Option(help="The flip of each scale, none, lr or ud: none,lr", metavar="FLIPS")
]


def wanted_passes(usual: bool, scales: str | None, flips: str | None) -> str | None:
    """Return `tta` as JSON text: the usual passes, or chosen ones; None is a plain look.

    Raises:
        CommandError: a scale is no number, or there are flips without scales.
    """
    if scales is None:
        if flips is not None:
            raise CommandError("--tta-flips goes with --tta-scales, which says how many passes there are")
        return "true" if usual else None
    try:
        numbers = [float(scale) for scale in scales.split(",")]
    except ValueError:
        raise CommandError(f"--tta-scales wants numbers such as 1,1.3, not {scales!r}") from None
    chosen: dict[str, object] = {"scales": numbers}
    if flips is not None:
        chosen["flips"] = [flip.strip() for flip in flips.split(",")]
    return json.dumps(chosen)
