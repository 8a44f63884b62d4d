"""A request whose body is read as strict JSON, on whatever route."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from app.api.error_handlers import RefusedError
from app.api.strict_json import strict_json
from app.errors import BadRequestError, PayloadTooLargeError


class StrictRequest(Request):
    """Made anew around the same scope, so that every route's body is read this way."""

    async def json(self) -> Any:
        try:
            return strict_json(await self.body())
        except ValueError as error:
            raise RefusedError(BadRequestError(f"the body is not valid JSON: {error}")) from None
        except PayloadTooLargeError as error:
            raise RefusedError(error) from None
