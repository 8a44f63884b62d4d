"""Serve the page: HTML for browsers, a few lines of text for those who ask with curl."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from app.api.context import SECURITY_HEADERS
from app.errors import NotFoundError

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " media-src 'self' blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = resources.files("app.web").joinpath("files")
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
NAMES = (
    "page.css",
    "start.js",
    "api.js",
    "elements.js",
    "jobs.js",
    "models.js",
    "plans.js",
    "profile.js",
    "progress.js",
    "serving.js",
    "videos.js",
)
PATHS = ("/", *(f"/page/{name}" for name in NAMES))
"""Whoever may reach the server may have these; what they show needs a key wherever the API needs one."""
WELCOME = """Harrier {version}: a labelled image archive becomes an object detector behind a REST endpoint.

  .              this address in a browser: a page of models, jobs and videos
  docs           every call, to try out in a browser
  openapi.json   the same for programs
  readyz         whether everything runs

  POST datasets with a zip, POST train, GET jobs/ID until it has succeeded, POST detect with a picture.
  POST train with "task": "classify" makes a classifier, which detect?classifier=ID asks about every box.
"""
"""The paths are relative to this one."""


@router.get("/")
def home(request: Request) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(WELCOME.format(version=version("harrier")), headers={"Vary": "Accept"})
    headers = {**SECURITY_HEADERS, "Content-Security-Policy": POLICY, "Vary": "Accept"}
    return HTMLResponse(FILES.joinpath("index.html").read_text(encoding="utf-8"), headers=headers)


@router.get("/page/{name}")
def file(name: str) -> Response:
    if name not in NAMES:
        raise NotFoundError("there is no such file")
    content = FILES.joinpath(name).read_bytes()
    kind = KINDS[name[name.rindex(".") :]]
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})
