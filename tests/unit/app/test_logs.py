"""Logs in one shape, with the ids that belong to them, and no line that a client has made."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import structlog

from app.gathered_lines import GatheringHandler
from app.logs import PlainLines, configure_logging, escape_control_characters, get_logger, log_often
from app.settings import Settings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_json=True, _env_file=None))
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        get_logger("app.test").info("happened", job_id="j1", ms=1.5)
    (line,) = lines(capsys)
    entry = json.loads(line)
    assert entry["timestamp"].endswith("Z")
    del entry["timestamp"]
    assert entry == {
        "event": "happened",
        "job_id": "j1",
        "ms": 1.5,
        "request_id": "r1",
        "level": "info",
        "logger": "app.test",
    }


@pytest.mark.parametrize("as_json", [True, False])
def test_a_client_cannot_forge_a_line(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure_logging(Settings(log_json=as_json, _env_file=None))
    evil = "name\r\n2026-01-01 [info] admin logged in\x1b[2J\u2028"
    get_logger("app.test").info("happened", name=evil)
    logging.getLogger("library").warning("saw %s", evil)
    shown = lines(capsys)
    assert len(shown) == 2
    assert all("\x1b[2J" not in line and "\u2028" not in line for line in shown)


def test_libraries_speak_in_the_same_shape(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_json=True, _env_file=None))
    logging.getLogger("library").warning("saw %s", "something")
    entry = json.loads(lines(capsys)[0])
    assert (entry["event"], entry["logger"], entry["level"]) == ("saw something", "library", "warning")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure_logging(Settings(log_json=as_json, _env_file=None))
    secret = "hunter" + "2"
    try:
        raise RuntimeError("it broke")
    except RuntimeError as error:
        get_logger("app.test").error("failed", exc_info=error)
    shown = capsys.readouterr().err
    assert "RuntimeError: it broke" in shown
    assert secret not in shown


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"logger": "app.api.context", "path": "/detect", "ms": 1.5, "client": None, "name": "two words"},
        {"logger": "a", "empty": "", "equals": "a=b", "quote": "it's", "list": [1, "x"], "tab": "a\tb"},
        {"logger": "a", "event": "a much longer event than there is room for", "level": "critical"},
        {"logger": "a", "exception": "Traceback\n  of something"},
        {"logger": "a", "stack": "Stack\n  of something"},
        {"logger_name": "a"},
    ],
)
def test_plain_lines_are_those_of_structlog(more: dict[str, object]) -> None:
    event = {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "request", **more}
    expected = structlog.dev.ConsoleRenderer(colors=False)(None, "info", dict(event))
    assert PlainLines()(None, "info", dict(event)) == expected


def test_ordinary_text_is_left_alone() -> None:
    event = {"event": "Grün, 漢字", "count": 3, "exception": "line\nline"}
    assert escape_control_characters(None, "info", dict(event)) == event


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_logged_often_is_the_same_line(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure_logging(Settings(log_json=as_json, _env_file=None), gathered=True)
    values = {"method": "POST", "path": "/a\r\nb", "status": 200, "ms": 1.5, "client": None}
    get_logger("app.test").info("request", **values)
    log_often("app.test", "request", **values)
    logging.getLogger().handlers[0].flush()
    written = lines(capsys)
    if as_json:
        first, second = map(json.loads, written)
        assert first.pop("timestamp") <= second.pop("timestamp")
    else:
        (began, _, first), (then, _, second) = (line.partition(" ") for line in written)
        assert began <= then
    assert first == second


def test_where_lines_go_elsewhere_so_do_those_that_are_logged_often(caplog: pytest.LogCaptureFixture) -> None:
    configure_logging(Settings(_env_file=None), gathered=True)
    logging.getLogger().handlers[:] = [caplog.handler]
    log_often("app.test", "request", status=200)
    assert [record.name for record in caplog.records] == ["app.test"]


def test_gathered_lines_come_together_and_in_their_order() -> None:
    stream = io.StringIO()
    handler = GatheringHandler(stream)
    logger = logging.Logger("gathered")
    logger.addHandler(handler)
    logger.info("first")
    logger.info("second")
    assert stream.getvalue() == ""
    logger.warning("third")
    assert stream.getvalue() == "first\nsecond\nthird\n"


def test_a_gathered_line_says_what_was_so_when_it_was_logged() -> None:
    stream = io.StringIO()
    logger, boxes = logging.Logger("gathered"), ["cat"]
    logger.addHandler(GatheringHandler(stream))
    logger.info("found %s", boxes)
    boxes.append("dog")
    logger.warning("enough")
    assert stream.getvalue() == "found ['cat']\nenough\n"


def test_who_logs_does_not_fail_where_lines_cannot_be_written_or_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Full(io.StringIO):
        is_full = True

        def write(self, text: str, /) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    logger = logging.Logger("gathered")
    logger.addHandler(GatheringHandler(stream))
    logger.warning("lost")
    stream.is_full = False
    logger.info("two %s are wanted: %s", "values")
    logger.warning("kept")
    assert stream.getvalue() == "kept\n"
    assert "not enough arguments" in capsys.readouterr().err


def test_a_gathered_line_waits_for_a_moment_only() -> None:
    stream = io.StringIO()
    handler = GatheringHandler(stream)
    handler.handle(logging.makeLogRecord({"msg": "alone", "levelno": logging.INFO}))
    deadline = time.monotonic() + 10
    while not stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.getvalue() == "alone\n"


def test_lines_that_are_made_later_keep_their_place() -> None:
    stream = io.StringIO()
    handler = GatheringHandler(stream)
    logger = logging.Logger("gathered")
    logger.addHandler(handler)
    handler.keep(lambda: "first")
    logger.info("second")
    handler.keep(lambda: "third")
    assert stream.getvalue() == ""
    logger.warning("fourth")
    assert stream.getvalue() == "first\nsecond\nthird\nfourth\n"


def test_the_end_of_the_process_writes_what_was_gathered() -> None:
    code = (
        "import logging, sys; from app.gathered_lines import GatheringHandler\n"
        "logging.basicConfig(level=logging.INFO, handlers=[GatheringHandler(sys.stderr)])\n"
        "logging.info('last words')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "INFO:root:last words\n"
