"""Swagger UI without the network: files from a package, relative addresses, no inline script."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app.api.context import SECURITY_HEADERS
from app.errors import NotFoundError

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles on its elements; scripts come from files only."""
PACKAGE = "fastapi_swagger.resources"
FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
PATHS = ("/docs", "/docs/start.js", *(f"/docs/{name}" for name in FILES))
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Harrier</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """// A form begins with the defaults that the description has, and with nothing where it has none:
// values that are made up would be sent as if somebody had chosen them.
function emptyFields(document) {
  for (const path of Object.values(document.paths ?? {})) {
    for (const call of Object.values(path)) {
      const form = call.requestBody?.content?.["multipart/form-data"]?.schema;
      const { properties = {}, required = [] } = form ?? {};
      for (const [name, field] of Object.entries(properties)) {
        if (required.includes(name) || "default" in field || field.format === "binary") continue;
        field.examples = [(field.anyOf?.[0] ?? field).type === "array" ? [] : ""];
      }
    }
  }
  return document;
}

// A field without a value is left out, until somebody asks for it to be sent empty.
function LeftOutWhenEmpty(Original, system) {
  return (props) =>
    system.React.createElement(Original, { ...props, isIncludedOptions: { shouldDispatchInit: false } });
}

// Several files are chosen at once; Swagger UI would ask for "string items" first.
function FilesOr(Original, system) {
  return (props) => {
    if (props.schema.getIn(["items", "format"]) !== "binary") {
      return system.React.createElement(Original, props);
    }
    const choose = (event) => props.onChange([...event.target.files]);
    return system.React.createElement("input", { type: "file", multiple: true, onChange: choose });
  };
}

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  filter: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  validatorUrl: null,
  plugins: [
    {
      statePlugins: {
        spec: {
          wrapActions: { updateJsonSpec: (original) => (document) => original(emptyFields(document)) },
        },
      },
      wrapComponents: { JsonSchema_array: FilesOr, ParameterIncludeEmpty: LeftOutWhenEmpty },
    },
  ],
});
"""


@router.get("/docs")
def page() -> Response:
    return HTMLResponse(PAGE, headers={**SECURITY_HEADERS, "Content-Security-Policy": POLICY})


@router.get("/docs/start.js")
def start() -> Response:
    return Response(START, media_type="text/javascript; charset=utf-8")


@router.get("/docs/{name}")
def file(name: str, request: Request) -> Response:
    if name not in FILES:
        raise NotFoundError("there is no such file")
    content = resources.files(PACKAGE).joinpath(name).read_bytes()
    return Response(content, media_type=FILES[name], headers={"Cache-Control": "public, max-age=86400"})
