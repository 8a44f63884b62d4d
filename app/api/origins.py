"""What browsers ask before a page of another origin may call: a refusal is a problem like any other."""

from __future__ import annotations

import structlog
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers
from starlette.responses import Response

from app.api.problems import problem_response
from app.errors import CrossSiteError


class Origins(CORSMiddleware):
    """Starlette's rules, our answers."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        refused = CrossSiteError(f"{bytes(answer.body).decode()}; see HARRIER_CORS_ORIGINS")
        request_id: str = structlog.contextvars.get_contextvars()["request_id"]
        problem = problem_response(refused, request_id)
        for name, value in answer.headers.items():
            if name == "vary" or name.startswith("access-control-"):
                problem.headers[name] = value
        return problem
