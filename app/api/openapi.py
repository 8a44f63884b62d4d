"""The API's own description; `python -m app.api.openapi > docs/openapi.json` writes it down."""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import Problem
from app.settings import Settings


def describe(app: FastAPI) -> None:
    """Let the application answer `/openapi.json` with our shape of errors, and a licence."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="A labelled image archive becomes an object detector behind a REST endpoint.",
        description=app.description,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document["components"]["schemas"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    return document


def main() -> None:
    from app.main import create_app  # the application describes itself, and needs this module to do so

    with tempfile.TemporaryDirectory() as home:
        document = create_app(Settings(home=home, _env_file=None)).openapi()
    json.dump(document, sys.stdout, indent=1, sort_keys=True, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
