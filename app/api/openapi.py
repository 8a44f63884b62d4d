"""The API's own description; `python -m app.api.openapi > docs/openapi.json` writes it down."""

from __future__ import annotations

import json
import sys
import tempfile
from threading import Lock
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.gate import PUBLIC
from app.api.problems import Problem, problem_examples
from app.api.shapes import with_nulls
from app.settings import Settings

KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key; not needed on loopback."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, alone."},
}


def describe(app: FastAPI) -> None:
    """Let the application answer `/openapi.json` with our shape of errors, and a licence."""

    making = Lock()

    def openapi() -> dict[str, Any]:
        with making:  # the first requests come in several threads, and Python 3.11 parses in one at a time
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
    components = document["components"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"].update(problem.pop("$defs"))
    components["schemas"]["Problem"] = problem
    components["examples"] = problem_examples()
    components["securitySchemes"] = KEYS
    for path, calls in document["paths"].items():
        for call in calls.values():
            _show_lists(call, components["schemas"])
            _say_defaults_in_words(call)
            if path not in PUBLIC:
                call["security"] = [*({name: []} for name in KEYS), {}]
    shown: dict[str, Any] = with_nulls(document)
    return shown


def _show_lists(call: dict[str, Any], schemas: dict[str, Any]) -> None:
    """A list that is no page has no schema of its own to hold an example: it is one of its item's."""
    for answer in call["responses"].values():
        content = answer.get("content", {}).get("application/json", {})
        item = content.get("schema", {}).get("items", {}).get("$ref", "").rpartition("/")[2]
        if item:
            content["example"] = [schemas[item]["example"]]


def _say_defaults_in_words(call: dict[str, Any]) -> None:
    """Leave out the default of what may stand in the query or in the form, and in one of them only.

    Clients that send every default would say it in both; the description tells it to people.
    """
    form = call.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
    for parameter in call.get("parameters", ()):
        if parameter["in"] == "query" and parameter["name"] in form.get("properties", ()):
            parameter["schema"].pop("default", None)


def written(document: dict[str, Any]) -> str:
    """Return the document as it is stored: sorted, so that a change shows as what it is."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    from app.main import create_app  # the application describes itself, and needs this module to do so

    with tempfile.TemporaryDirectory() as home:
        document = create_app(Settings(home=home, _env_file=None)).openapi()
    sys.stdout.write(written(document))


if __name__ == "__main__":
    main()
