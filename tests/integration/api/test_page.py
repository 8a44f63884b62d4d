"""The page at `/`: for browsers a page of our own files only, for others a few lines of text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.web.routes import NAMES
from tests.integration.api.conftest import Api, MakeApi, assert_problem

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FILES = Path(__file__).resolve().parents[3] / "app" / "web" / "files"


def test_who_asks_with_curl_reads_where_to_go(api: Api) -> None:
    answer = api.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    for word in (
        api.get("/version").json()["version"],
        "docs",
        "openapi.json",
        "readyz",
        "browser",
        "POST train",
        "classify",
    ):
        assert word in answer.text


def test_a_browser_gets_a_page_that_needs_no_other_server(api: Api) -> None:
    page = api.get("/", headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Accept" in page.headers["vary"]
    linked = [link for link in re.findall(r'(?:src|href)="([^"#]+)"', page.text) if link != "data:,"]
    assert {"page/start.js", "page/page.css", "docs"} == set(linked)
    for link in linked:
        assert api.get(f"/{link}").status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "media-src 'self' blob:;" in policy
    assert "unsafe" not in policy


def test_every_file_is_served_and_nothing_else(api: Api) -> None:
    assert sorted(NAMES) == sorted(path.name for path in FILES.iterdir() if path.name != "index.html")
    for name in NAMES:
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert api.get(f"/page/{name}").headers["content-type"] == f"{kind}; charset=utf-8"
    assert_problem(api.get("/page/index.html"), 404, "not_found")


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_server_or_writes_markup(name: str) -> None:
    text = (FILES / name).read_text(encoding="utf-8")
    assert re.findall(r"(?:https?:)?//[a-z]|innerHTML|insertAdjacentHTML|document\.write|eval\(", text) == []
    imported = re.findall(r'from "([^"]+)"', text)
    assert [each for each in imported if each.removeprefix("./") not in NAMES] == []


def test_the_page_is_there_before_a_key_is_given(make_api: MakeApi) -> None:
    api = make_api(require_keys=True)
    assert api.get("/", headers=BROWSER).status_code == 200
    assert api.get("/page/start.js").status_code == 200
    assert_problem(api.get("/models"), 401, "unauthorized")
