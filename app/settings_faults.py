"""Settings that cannot work: said in one message, and told by an exit status that says not to try again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError


def settings_fault(error: ValidationError) -> str:
    """Return which settings are not valid, and why."""
    faults = (
        f"HARRIER_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    )
    return "a setting is not valid\n  " + "\n  ".join(faults)


@contextmanager
def faults_end_the_process() -> Iterator[None]:
    """End a process whose settings are not valid with a message; there is no log to write it to yet."""
    try:
        yield
    except ValidationError as error:
        sys.stderr.write(f"{settings_fault(error)}\n")
        sys.exit(os.EX_CONFIG)
