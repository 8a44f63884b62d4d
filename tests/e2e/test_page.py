"""The page in a real browser: Chromium runs its scripts against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database.session import create_database_engine, create_sessions
from app.database.tables import Model
from detection.deploy.package import write_model
from detection.models import create_served_model
from tests.browser import CHROMIUM, Browser
from tests.clips import clip
from tests.pictures import jpeg, quadrants
from tests.published import RECORD, add_real_model
from tests.serving import Serve

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SHAPE = {"backend": "onnxruntime", "precision": "fp32", "streams": 1, "threads": 1, "batch_size": 1}
ROW = {
    **SHAPE,
    **dict.fromkeys(("pictures_per_s", "p50_ms", "p95_ms", "alone_p50_ms", "alone_p95_ms"), 9.5),
    "ap": 0.25,
    "ap_drop": 0.0,
    "same_boxes": 1.0,
    "agrees": True,
    "why_not": None,
}
PLAN = {
    "model_id": "paged",
    "job_id": "none",
    "made_at": "2026-11-20T12:00:00Z",
    "device": "cpu",
    "processor": "a processor",
    "cores": 2,
    "dataset_id": None,
    "split": "val",
    "pictures": 49,
    "others_share": 0.434,
    "beside": "other processes used 43% of the machine",
    "wish": {"p95_ms": 50.0, "rps": None, "max_ap_drop": 0.005},
    "rows": [{**ROW, "backend": "eager", "p95_ms": 81.0, "why_not": "p95 above 50 ms"}, ROW],
    "winner": ROW,
    "pinned": SHAPE,
    "closest": None,
    "unmet": [],
}

TYPES = ".opblock-section-request-body .body-param-content-type select"
"""Where Swagger UI lets a person choose how a body is sent."""


@pytest.fixture(scope="module")
def paged(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """The server with a model `paged`, to which a plan has pinned something."""
    folder = tmp_path_factory.mktemp("model")
    write_model(create_served_model("yolox-nano", num_classes=len(RECORD.classes)), RECORD, folder)
    add_real_model(serve.settings, folder, "paged")
    engine = create_database_engine(serve.settings)
    with create_sessions(engine)() as session:
        model = session.get_one(Model, "paged")
        model.plan, model.serving = PLAN, SHAPE
        session.commit()
    engine.dispose()
    return serve


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def show(browser: Browser, serve: Serve, view: str, text: str) -> None:
    """Open a view, and return when it shows a text."""
    browser.open("about:blank")
    browser.open(f"{serve.http.base_url}#{view}")
    browser.wait_for(f"document.body?.innerText.includes({text!r})")


def show_call(browser: Browser, serve: Serve, path: str, content_type: str) -> None:
    """Open Swagger UI at a POST, and return when its form of this content type is there."""
    browser.open("about:blank")
    call = serve.http.get("/openapi.json").json()["paths"][path]["post"]
    browser.open(f"{serve.http.base_url}/docs#/{call['tags'][0]}/{call['operationId']}")
    browser.wait_for(f"document.querySelector('{TYPES}')")
    browser.run(
        f"const types = document.querySelector('{TYPES}');"
        "Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set.call(types, "
        f"{content_type!r}); types.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )
    browser.wait_for("document.querySelector('.opblock-section-request-body input[type=file]')")


def executed(browser: Browser) -> tuple[str, str]:
    """Press `Execute`, and return the request as curl would send it, and the status of the answer."""
    browser.run("document.querySelector('button.execute').click()")
    browser.wait_for("document.querySelector('.live-responses-table .response-col_status')")
    sent = browser.run("document.querySelector('.curl-command').innerText")
    status = browser.run(
        "document.querySelector('.live-responses-table .response .response-col_status').innerText"
    )
    return sent, status.split()[0]


def press(browser: Browser, label: str) -> None:
    browser.run(
        f"[...document.querySelectorAll('button')].find((each) => each.innerText === {label!r}).click()"
    )


def test_a_profile_is_a_table_on_the_page(paged: Serve, browser: Browser) -> None:
    paged.succeeded(
        paged.http.post("/models/paged/profile", json={"runs": 1, "verbose": True}).headers["Location"]
    )
    show(browser, paged, "model/paged", "Backward, ms")
    for heading in ("backbone", "whole", "parameter tensors"):
        assert heading in browser.text
    fits_every_window(browser, "Profile by part")
    show(browser, paged, "jobs", "profile of")


def test_no_window_is_too_narrow_for_the_models(paged: Serve, browser: Browser) -> None:
    show(browser, paged, "models", "onnxruntime:fp32, pinned")
    assert "answers when none is named" in browser.text
    fits_every_window(browser, "Models")


def fits_every_window(browser: Browser, table: str) -> None:
    place = f"document.querySelector('table[aria-label=\"{table}\"]').parentElement"
    for width in (400, 800, 1100, 1600):
        browser.resize(width)
        assert browser.run(f"{place}.scrollWidth <= {place}.clientWidth"), width
    browser.resize(1100)


def test_a_plan_shows_why_the_others_were_not_pinned_and_what_is_can_be_unpinned(
    paged: Serve, browser: Browser
) -> None:
    show(browser, paged, "model/paged", "The last plan")
    table = browser.run("document.querySelector('table[aria-label=\"Ways to serve\"]').innerText")
    assert "pinned" in table
    assert "p95 above 50 ms" in table
    assert "other processes used 43%" in browser.text
    press(browser, "Unpin it")
    browser.wait_for("document.body.innerText.includes('nothing: the engine decides')")
    assert paged.http.get("/models/paged").json()["serving"] is None
    assert "and is not any more" in browser.text
    assert "was pinned then" in browser.text


def test_a_plan_that_cannot_begin_says_what_it_needs(paged: Serve, browser: Browser) -> None:
    show(browser, paged, "model/paged", "Plan it")
    browser.run("document.querySelector('input[name=p95_ms]').value = '40'")
    press(browser, "Measure and plan")
    browser.wait_for("document.querySelector('[role=alert]')")
    alert = browser.run("document.querySelector('[role=alert]').innerText")
    assert alert.startswith("Pictures of: there is none to choose; a plan needs pictures with labels")
    assert browser.run("document.querySelector('select[name=dataset_id]').innerText.trim()") == "choose one"
    browser.run("document.querySelector('input[name=max_ap_drop]').value = '1'")
    press(browser, "Profile it")
    browser.wait_for("!document.querySelector('[role=alert]')")


def test_a_small_figure_keeps_the_digits_that_count_and_a_fault_is_said_once(
    serve: Serve, browser: Browser
) -> None:
    show(browser, serve, "models", "Models")
    browser.run(
        "Promise.all([import('./page/elements.js'), import('./page/api.js')])"
        ".then(([{ shown }, { ApiError }]) => { const problem = 'a plan needs pictures';"
        " const fault = { pointer: '/dataset_id', problem };"
        " window.said = [0.00025, 0.0004, 0, 12.5].map((each) => shown(each)).join(' ');"
        " window.fault = new ApiError(422, { detail: `/dataset_id: ${problem}`, errors: [fault] }).message;"
        " })"
    )
    browser.wait_for("window.fault")
    assert browser.run("window.said") == "0.00025 0.0004 0 12.5"
    assert browser.run("window.fault") == "/dataset_id: a plan needs pictures"


def test_a_video_is_sent_looked_at_and_played(paged: Serve, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip())
    show(browser, paged, "video", "Look at it")
    assert "the default one (" in browser.text
    browser.run("document.querySelector('select[name=model]').value = 'paged'")
    browser.choose_file("input[type=file]", path)
    press(browser, "Look at it")
    browser.wait_for("document.querySelector('video')?.readyState >= HTMLMediaElement.HAVE_METADATA", 120)
    assert browser.run("document.querySelector('video').videoWidth") == 64
    links = browser.run("[...document.querySelectorAll('a[download]')].map((link) => link.href)")
    assert [link.rsplit("/", 1)[1] for link in links] == ["video", "detections"]
    assert len(paged.http.get(links[1]).text.splitlines()) == 1 + 10
    a_download_that_fails_says_why(browser)


def a_download_that_fails_says_why(browser: Browser) -> None:
    """With a key the page fetches the file itself, and nobody else would tell."""
    browser.run("sessionStorage.setItem('harrier-key', 'wrong')")
    browser.run("document.querySelector('a[download]').click()")
    browser.wait_for("document.querySelector('li [role=alert]')?.innerText.includes('This key is not valid')")
    browser.run("sessionStorage.clear()")


def test_a_key_is_asked_for_and_a_wrong_one_is_told(serve: Serve, browser: Browser) -> None:
    show(browser, serve, "models", "Models")
    browser.run("window.fetch = async () => new Response('{}', {status: 401})")
    browser.run("location.hash = 'jobs'")
    browser.wait_for("document.querySelector('[role=alert]')?.innerText === 'Enter an API key'")
    browser.run("document.getElementById('secret').value = 'wrong'")
    press(browser, "Use it")
    browser.wait_for("document.querySelector('[role=alert]')?.innerText === 'This key is not valid'")
    assert browser.run("document.getElementById('key').hidden") is False
    browser.run("sessionStorage.clear()")


def test_what_is_not_there_is_said(serve: Serve, browser: Browser) -> None:
    show(browser, serve, "model/nothing", "there is no model nothing")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/octet-stream", "image/*"])
def test_a_chosen_picture_is_all_that_swagger_ui_sends(
    paged: Serve, browser: Browser, tmp_path: Path, content_type: str
) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg(quadrants()))
    show_call(browser, paged, "/detect", content_type)
    browser.choose_file(".opblock-section-request-body input[type=file]", path)
    sent, status = executed(browser)
    assert status == "200", browser.text
    assert "/detect?" not in sent
    assert sent.count("-F ") == (1 if content_type == "multipart/form-data" else 0), sent


def test_swagger_ui_makes_up_no_field_of_an_upload(paged: Serve, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "cells.zip"
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    show_call(browser, paged, "/datasets", "multipart/form-data")
    browser.choose_file("[data-property-name=archive] input[type=file]", path)
    sent, status = executed(browser)
    assert status == "202", browser.text
    assert "name=" not in sent
