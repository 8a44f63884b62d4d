"""How one device is asked for; who asks wrongly is told which names there are."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

PATTERN = r"^(auto|cpu|[0-9]{1,3})$"


def _known(text: str) -> str:
    if re.fullmatch(PATTERN, text) is None:
        raise ValueError("should be `auto`, `cpu`, or one accelerator by number: `0`")
    return text


OneDevice = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": PATTERN, "examples": ["auto"]}),
]
