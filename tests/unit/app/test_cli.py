"""The command line against a server that answers what the test says: what is asked, printed and refused."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from rich.console import Console
from typer.testing import CliRunner

from app.cli import bench, commands, weights
from app.cli.client import Api, CommandError
from app.cli.gauge import PlainLines, counted_bytes, counted_pictures
from app.cli.progress import facts, follow_job
from app.database.upgrade import DatabaseSettingError, UnusableDatabaseError
from app.keys.revocation import without_secret
from app.keys.service import BootstrapKeyError, ExposureError
from app.settings import Settings, get_settings

JOB = {
    "id": "j1",
    "kind": "train",
    "name": "night",
    "status": "succeeded",
    "stage": "done",
    "progress": {"epoch": 2, "epochs": 2, "fraction": 1.0},
    "metrics": {"loss": 4.5, "ap": 0.5, "ap50": 0.75},
    "eta_s": 0.0,
    "queue_position": None,
    "failure": None,
    "result": {"model_id": "m1"},
}
REPORT = {
    "status": "ready",
    "counts": {"box_empty": 3},
    "findings": [
        {
            "code": "box_empty",
            "severity": "warning",
            "action": "dropped",
            "file": "a.txt",
            "where": "line 3",
            "message": "the box has no area",
            "image_id": "a",
        }
    ],
}
PROBLEM = {
    "title": "The request is not valid",
    "detail": "2 faults",
    "status": 422,
    "code": "invalid_input",
    "errors": [{"place": "body", "pointer": "/epochs", "problem": "too few"}],
    "links": {"export": "/models/m1/export"},
}


@dataclass
class Asked:
    method: str
    path: str
    body: bytes
    headers: Any


@dataclass
class FakeServer:
    """Answers by path, in the order that the test gave; the last answer stays."""

    answers: dict[str, list[tuple[int, str, bytes]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    address: str = ""

    def answer(self, path: str, body: Any, status: int = 200, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.setdefault(path, []).append((status, kind, content))

    def next_answer(self, path: str) -> tuple[int, str, bytes]:
        answers = self.answers.get(path.partition("?")[0])
        if not answers:
            return 404, "application/problem+json", json.dumps({**PROBLEM, "code": "not_found"}).encode()
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def bodies(self, path: str) -> list[bytes]:
        return [asked.body for asked in self.asked if asked.path.partition("?")[0] == path]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            fake.asked.append(Asked(self.command, self.path, body, self.headers))
            status, kind, content = fake.next_answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_GET

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
        fake.address = f"http://127.0.0.1:{http.server_port}"
        yield fake
        http.shutdown()


Run = Callable[..., str]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARRIER_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()


@pytest.fixture
def run(server: FakeServer, environment: pytest.MonkeyPatch) -> Run:
    """Run a command and return what it printed on standard output."""
    environment.setenv("HARRIER_URL", server.address)
    environment.setenv("HARRIER_API_KEY", "hr_key")

    def go(*arguments: object, fails: str | None = None, says: str = "") -> str:
        done = CliRunner().invoke(commands.app, [str(argument) for argument in arguments])
        if fails is None:
            assert done.exit_code == 0, (done.output, done.exception)
        else:
            assert isinstance(done.exception, CommandError), (done.output, done.exception)
            assert fails in str(done.exception)
        assert says in done.stderr
        return done.stdout

    return go


def page(*rows: dict[str, Any], cursor: str | None = None) -> dict[str, Any]:
    return {"items": list(rows), "next_cursor": cursor}


class TestErrors:
    def test_a_problem_is_shown_with_its_places(self, server: FakeServer, run: Run) -> None:
        server.answer("/train", PROBLEM, 422, "application/problem+json")
        run("train", "d1", fails="2 faults  [invalid_input]\n  /epochs: too few\n  export: /models/m1/export")

    def test_the_only_fault_is_said_once(self, server: FakeServer, run: Run) -> None:
        server.answer("/train", {**PROBLEM, "detail": "/epochs: too few"}, 422, "application/problem+json")
        run("train", "d1", fails="The request is not valid: /epochs: too few  [invalid_input]\n  export:")

    def test_an_answer_that_is_no_problem_is_shown_as_it_is(self, server: FakeServer, run: Run) -> None:
        server.answer("/jobs/j1", b"<html>\n  proxy</html>", 502, "text/html")
        run("jobs", "show", "j1", fails="not by Harrier: <html> proxy</html>")
        server.answer("/jobs/j2", b"<html>welcome</html>", 200, "text/html")
        run("jobs", "show", "j2", fails="is no Harrier server")

    def test_a_wrong_id_comes_with_where_the_right_ones_are(self, run: Run) -> None:
        run("jobs", "show", "j9", fails="What there is: `harrier jobs list`")
        run("jobs", "watch", "j9", fails="What there is: `harrier jobs list`")
        run("models", "download", "m9", fails="What there is: `harrier models list`")
        run("train", "d9", fails="What there is: `harrier datasets list`, `harrier models list`")

    def test_a_missing_key_comes_with_where_to_get_one(self, server: FakeServer, run: Run) -> None:
        server.answer("/jobs", {**PROBLEM, "code": "unauthorized"}, 401, "application/problem+json")
        run("jobs", "list", fails="harrier keys create NAME")

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("http://127.0.0.1:1", "no Harrier server answers at http://127.0.0.1:1 ("),
            ("localhost:8000", "HARRIER_URL must be like http://host:8000, and is 'localhost:8000'"),
            ("ftp://host", "HARRIER_URL must be like"),
            ("http://", "HARRIER_URL must be like"),
            ("http://host:port", "HARRIER_URL is no address"),
        ],
    )
    def test_an_address_where_nobody_is(
        self, environment: pytest.MonkeyPatch, address: str, words: str
    ) -> None:
        environment.setenv("HARRIER_URL", address)
        done = CliRunner().invoke(commands.app, ["jobs", "list"])
        assert isinstance(done.exception, CommandError)
        assert words in str(done.exception)

    @pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
    def test_a_key_that_cannot_be_one(self, run: Run, environment: pytest.MonkeyPatch, key: str) -> None:
        environment.setenv("HARRIER_API_KEY", key)
        get_settings.cache_clear()
        run("jobs", "list", fails="HARRIER_API_KEY holds characters that no key has")

    def test_the_command_says_it_in_one_line_and_fails(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for arguments, message in (
            (["jobs", "list"], "no Harrier server answers"),
            (["keys", "list"], "there is no home at"),
            (["migrate"], "there is no home at"),
            (["api"], "there is no home at /"),
        ):
            environment.setattr("sys.argv", ["harrier", *arguments])
            environment.setenv("HARRIER_URL", "http://127.0.0.1:1")
            with pytest.raises(SystemExit) as ended:
                commands.main()
            assert ended.value.code == 1
            printed = capsys.readouterr()
            assert printed.out == ""
            assert message in printed.err
            assert "Traceback" not in printed.err

    def test_a_setting_that_is_wrong_is_named(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment.setenv("HARRIER_PORT", "many")
        environment.setattr("sys.argv", ["harrier", "settings"])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        assert ended.value.code == os.EX_CONFIG
        assert "HARRIER_PORT: Input should be a valid integer" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (ExposureError("nobody needs a key"), os.EX_CONFIG),
            (BootstrapKeyError("no such file"), os.EX_CONFIG),
            (DatabaseSettingError("no address"), os.EX_CONFIG),
            (UnusableDatabaseError("the database is away"), 1),
            (CommandError("no such job"), 1),
        ],
    )
    def test_only_what_no_other_try_mends_has_the_status_for_settings(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
    ) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(commands, "app", fail)
        with pytest.raises(SystemExit) as ended:
            commands.main()
        assert ended.value.code == status


class TestSettings:
    def test_secrets_are_not_shown(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("HARRIER_REDIS_URL", "redis://:hunter2@host")
        environment.setenv("HARRIER_API_KEY", "hunter3")
        environment.setenv("HARRIER_DATABASE_URL", "postgresql+psycopg://me:hunter4@host/db")
        environment.setenv("HARRIER_CORS_ORIGINS", "https://a,https://b")
        text = CliRunner().invoke(commands.app, ["settings"]).stdout
        rows = json.loads(CliRunner().invoke(commands.app, ["settings", "--json"]).stdout)
        assert "hunter" not in text + json.dumps(rows)
        values = {row["name"]: row["value"] for row in rows}
        assert values["HARRIER_DATABASE_URL"] == "postgresql+psycopg://me:***@host/db"
        assert values["HARRIER_CORS_ORIGINS"] == "https://a,https://b"
        assert set(values) == {f"HARRIER_{name.upper()}" for name in Settings.model_fields}
        assert all(row["description"] for row in rows)

    def test_the_version(self) -> None:
        assert CliRunner().invoke(commands.app, ["version"]).stdout.strip()


class TestLists:
    def test_pages_are_put_together(self, server: FakeServer, run: Run) -> None:
        server.answer("/jobs", page(JOB, cursor="next"))
        server.answer("/jobs", page({**JOB, "id": "j2"}))
        assert [row["id"] for row in json.loads(run("jobs", "list", "--json"))] == ["j1", "j2"]
        assert "cursor=next" in server.asked[1].path
        assert server.asked[0].headers["authorization"] == "Bearer hr_key"

    def test_rows_are_aligned_and_whole(self, server: FakeServer, run: Run) -> None:
        server.answer("/jobs", page({**JOB, "id": "x" * 90}))
        heading, row = run("jobs", "list").splitlines()
        assert heading.startswith("ID" + " " * 88)
        assert row.startswith("x" * 90 + "  train  succeeded")

    def test_a_long_reason_moves_no_other_column(self, server: FakeServer, run: Run) -> None:
        failed = {**JOB, "id": "j2", "failure": {"message": "why " * 100}}
        server.answer("/jobs", page(JOB, failed))
        heading, row, _ = run("jobs", "list").splitlines()
        assert heading.split() == ["ID", "KIND", "STATUS", "STAGE", "NAME", "FACTS"]
        assert len(row) < 100

    def test_datasets_and_models(self, server: FakeServer, run: Run) -> None:
        dataset = {"id": "d1", "status": "ready", "format": "voc", "classes": ["a"], "name": "cells"}
        server.answer(
            "/datasets", page({**dataset, "splits": {"train": {"images": 3}, "val": {"images": 2}}})
        )
        assert "d1  ready   voc     5         1        cells" in run("datasets", "list")
        assert json.loads(run("datasets", "list", "--json"))[0]["id"] == "d1"
        model = {"id": "m1", "alias": None, "architecture": "yolox-s", "classes": [], "name": "n"}
        server.answer("/models", page({**model, "metrics": {"ap": 0.25, "ap50": None}}))
        _, row = run("models", "list").splitlines()
        assert "0.250" in row
        assert not row.endswith("answers when none is named")
        server.answers["/models"].clear()
        server.answer("/models", page({**model, "metrics": None, "is_default": True}))
        assert run("models", "list").strip().endswith("n     answers when none is named")
        server.answers["/models"].clear()
        server.answer("/models", page({**model, "metrics": {"accuracy": 0.875}}))
        assert "ACCURACY" in run("models", "list")
        assert "0.875" in run("models", "list")
        assert json.loads(run("models", "list", "--json"))[0]["id"] == "m1"


class TestDatasets:
    def test_a_folder_is_packed_on_the_way(self, server: FakeServer, run: Run, tmp_path: Path) -> None:
        (tmp_path / "cells" / "train").mkdir(parents=True)
        (tmp_path / "cells" / "train" / "a.jpg").write_bytes(b"picture")
        (tmp_path / "cells" / "link").symlink_to("/etc/passwd")
        server.answer("/datasets", {"id": "d1", "job_id": "j1"}, 202)
        server.answer("/jobs/j1", JOB)
        server.answer("/datasets/d1", {"id": "d1", "splits": {"train": {"images": 1, "boxes": 2}}})
        server.answer("/datasets/d1/report", REPORT)
        assert run("datasets", "add", tmp_path / "cells", "--seed", 7).strip() == "d1"
        (body,) = server.bodies("/datasets")
        assert b'name="name"\r\n\r\ncells' in body
        assert b'name="seed"\r\n\r\n7' in body
        packed = body[body.index(b"PK\x03\x04") :]
        with zipfile.ZipFile(io.BytesIO(packed[: packed.index(b"\r\n--")])) as archive:
            assert archive.namelist() == ["train/a.jpg"]

    def test_an_archive_goes_as_it_is_and_need_not_be_waited_for(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "cells.tar").write_bytes(b"an archive")
        server.answer("/datasets", {"id": "d1", "job_id": "j1"}, 202)
        assert run("datasets", "add", tmp_path / "cells.tar", "--no-wait", "--name", "c").strip() == "d1"
        assert b'name="name"\r\n\r\nc' in server.bodies("/datasets")[0]
        run("datasets", "add", tmp_path / "cells.tar", "--no-wait")
        assert b'name="name"' not in server.bodies("/datasets")[1]  # the server makes one: cells
        assert b'filename="cells.tar"' in server.bodies("/datasets")[0]
        assert b"an archive" in server.bodies("/datasets")[0]

    def test_what_was_wrong_is_said_after_the_import_and_in_full_on_demand(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "cells.tar").write_bytes(b"an archive")
        server.answer("/datasets", {"id": "d1", "job_id": "j1"}, 202)
        server.answer("/jobs/j1", JOB)
        server.answer("/datasets/d1", {"id": "d1", "splits": {}})
        server.answer("/datasets/d1/report", REPORT)
        done = CliRunner().invoke(commands.app, ["datasets", "add", str(tmp_path / "cells.tar")])
        assert "findings: 3 × box_empty; see harrier datasets report d1" in done.stderr
        done = CliRunner().invoke(commands.app, ["datasets", "report", "d1"])
        heading, row = done.stdout.splitlines()
        assert heading.split() == ["SEVERITY", "ACTION", "CODE", "FILE", "WHERE", "MESSAGE"]
        assert row == "warning   dropped  box_empty  a.txt  line 3  the box has no area"
        assert "and 2 more" in done.stderr
        assert json.loads(run("datasets", "report", "d1", "--json")) == REPORT

    def test_a_dataset_without_a_fault_is_said_to_have_none(self, server: FakeServer, run: Run) -> None:
        server.answer("/datasets/d1/report", {"status": "ready", "counts": {}, "findings": []})
        assert run("datasets", "report", "d1") == ""
        done = CliRunner().invoke(commands.app, ["datasets", "report", "d1"])
        assert "nothing was found wrong" in done.stderr

    def test_what_is_not_there_is_named_by_its_whole_path(self, run: Run, tmp_path: Path) -> None:
        run("datasets", "add", "nowhere", fails=str(tmp_path / "nowhere"))


class TestTraining:
    def test_options_and_assignments_become_the_body(self, server: FakeServer, run: Run) -> None:
        server.answer("/train", {**JOB, "status": "queued"}, 202)
        assignments = ("optimizer.lr=0.01", "ema.enabled=false", 'freeze.parts=["neck"]', "precision=fp32")
        options = [text for assignment in assignments for text in ("--set", assignment)]
        assert run("train", "d1", "--epochs", 3, "--batch-size", "auto", *options).strip() == "j1"
        assert json.loads(server.bodies("/train")[0]) == {
            "dataset_id": "d1",
            "epochs": 3,
            "batch_size": "auto",
            "optimizer": {"lr": 0.01},
            "ema": {"enabled": False},
            "freeze": {"parts": ["neck"]},
            "precision": "fp32",
        }

    def test_several_processes(self, server: FakeServer, run: Run) -> None:
        server.answer("/train", {**JOB, "status": "queued"}, 202)
        run("train", "d1", "--device", "0,1", "--processes", 2, "--sync-bn")
        (body,) = map(json.loads, server.bodies("/train"))
        assert body == {"dataset_id": "d1", "device": "0,1", "processes": 2, "sync_bn": True}

    def test_watching_ends_with_the_model(self, server: FakeServer, run: Run) -> None:
        server.answer("/train", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", JOB)
        assert run("train", "d1", "--watch", "--batch-size", 8).strip() == "m1"

    @pytest.mark.parametrize("assignment", ["epochs", "=3", "dataset_id.x=1"])
    def test_an_assignment_that_is_none_is_refused(self, run: Run, assignment: str) -> None:
        run("train", "d1", "--set", assignment, fails="--set")


class TestJobs:
    def test_orders(self, server: FakeServer, run: Run) -> None:
        for order in ("cancel", "resume", "finish"):
            server.answer(f"/jobs/j1/{order}", {**JOB, "status": "cancelling"}, 202)
            run("jobs", order, "j1")
        assert [asked.method for asked in server.asked] == ["POST"] * 3

    def test_log(self, server: FakeServer, run: Run) -> None:
        server.answer("/jobs/j1/log", b"one\ntwo\n", kind="text/plain")
        assert run("jobs", "log", "j1") == "one\ntwo\n"

    def test_a_stream_wakes_the_watcher_and_a_broken_one_does_not_end_it(
        self, server: FakeServer, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setattr("app.cli.progress.POLL_S", 0.01)
        for status in ("queued", "running", "running", "running", "succeeded"):
            server.answer("/jobs/j1", {**JOB, "status": status, "eta_s": 61.0})
        server.answer("/jobs/j1/events", b": alive\n\nevent: status\ndata: {}\n\n", kind="text/event-stream")
        server.answer("/jobs/j1/events", b"", 500)
        server.answer("/jobs/j1/log", b"line\n", kind="text/plain")
        job = follow_job(Api(Settings(url=server.address)), "j1", log=True)
        assert job["status"] == "succeeded"
        assert len(server.bodies("/jobs/j1")) == 5
        assert len(server.bodies("/jobs/j1/events")) >= 2

    def test_what_a_queued_job_waits_for_is_asked_again_without_an_event(
        self, server: FakeServer, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment.setattr("app.cli.progress.POLL_S", 0.01)
        environment.setattr("app.cli.gauge.EVERY_S", 0.0)
        for message in ("device 0 of here is in use by job j0", "it is its turn"):
            waiting = {"code": "any", "message": message}
            server.answer(
                "/jobs/j1", {**JOB, "status": "queued", "queue_position": 1, "waiting_for": waiting}
            )
        server.answer("/jobs/j1", {**JOB, "status": "succeeded"})
        follow_job(Api(Settings(url=server.address)), "j1")
        said = capsys.readouterr().err
        assert "number 1 in the queue: device 0 of here is in use by job j0" in said
        assert "number 1 in the queue: it is its turn" in said
        assert not server.bodies("/jobs/j1/events")

    @pytest.mark.parametrize(
        ("failure", "words"),
        [(None, "was cancelled"), ({"code": "diverged", "message": "the loss is NaN"}, "NaN  [diverged]")],
    )
    def test_a_job_that_did_not_succeed_is_a_failure(
        self, server: FakeServer, run: Run, failure: dict[str, str] | None, words: str
    ) -> None:
        server.answer("/jobs/j1", {**JOB, "status": "cancelled", "failure": failure})
        run("jobs", "watch", "j1", fails=words)

    def test_facts(self) -> None:
        assert facts(JOB) == "epoch 2/2  loss 4.500  AP 0.500  AP50 0.750"
        waiting = {**JOB, "status": "queued", "progress": {}, "metrics": {"ap": None}, "queue_position": 3}
        assert facts(waiting) == "number 3 in the queue"
        waiting["waiting_for"] = {"code": "device_busy", "message": "device 0 of here is in use by job j2"}
        assert facts(waiting) == "number 3 in the queue: device 0 of here is in use by job j2"
        assert facts({**JOB, "status": "running", "eta_s": 125.2}).endswith("2:05 left")
        assert facts({**JOB, "status": "running", "eta_s": 21541.0}).endswith("5 h 59 min left")
        assert facts({**JOB, "metrics": {"accuracy": 0.9}}) == "epoch 2/2  accuracy 0.900"

    def test_the_list_says_why_a_job_failed(self, server: FakeServer, run: Run) -> None:
        failure = {"code": "device_missing", "message": "device '7':\nno live worker has it"}
        server.answer("/jobs", page({**JOB, "status": "failed", "failure": failure}))
        assert "night  epoch 2/2  loss 4.500  AP 0.500  AP50 0.750  device '7': no live worker has it" in run(
            "jobs", "list"
        )


class TestGauges:
    """The commands run without a terminal here: what they print must tell how far they are."""

    @pytest.fixture
    def said(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        lines: list[str] = []
        monkeypatch.setattr("app.cli.gauge.say", lines.append)
        return lines

    def test_a_line_now_and_then_when_it_has_changed(
        self, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter((0.0, 1.0, 5.0, 6.0, 7.0, 12.0, 13.0))
        monkeypatch.setattr("app.cli.gauge.time", SimpleNamespace(monotonic=lambda: next(clock)))
        lines = PlainLines()
        for line, at_once in (
            ("a", False),
            ("b", False),
            ("c", False),
            ("d", True),
            ("d", False),
            ("e", False),
        ):
            lines.offer(line, at_once=at_once)
        assert said == ["b", "d", "e"]

    def test_a_job_is_shown_with_every_stage_and_its_end(
        self, server: FakeServer, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.cli.progress.POLL_S", 0.01)
        running = {**JOB, "status": "running", "progress": {"epoch": 1, "epochs": 2, "fraction": 0.5}}
        for job in (
            {**running, "status": "queued", "stage": "queued", "progress": {}, "metrics": {}},
            {**running, "stage": "training"},
            {**running, "stage": "training", "metrics": {"loss": 9.9}},
            JOB,
        ):
            server.answer("/jobs/j1", job)
        follow_job(Api(Settings(url=server.address)), "j1")
        assert said == [
            "  queued         0%",
            "  training      50%  epoch 1/2  loss 4.500  AP 0.500  AP50 0.750",
            "  succeeded    100%  epoch 2/2  loss 4.500  AP 0.500  AP50 0.750",
        ]

    def test_bytes_and_pictures_are_counted(self, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.cli.gauge.EVERY_S", 0.0)
        with counted_bytes("a.zip", 2_000_000) as advance:
            advance(500_000)
        with counted_bytes("b.pth", None) as advance:
            advance(1000)
        with counted_pictures("detecting", 7) as advance:
            advance(1)
            advance(2)
        assert said == [
            "  a.zip: 500.0 kB of 2.0 MB",
            "  b.pth: 1.0 kB",
            "  detecting: 1 of 7",
            "  detecting: 3 of 7",
        ]

    def test_a_terminal_gets_a_bar(self, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Console(file=io.StringIO(), force_terminal=True, width=100)
        for module in ("gauge", "progress"):
            monkeypatch.setattr(f"app.cli.{module}.notes", screen)
        with counted_bytes("a.zip", 2000) as advance:
            advance(2000)
        server.answer("/jobs/j1", JOB)
        follow_job(Api(Settings(url=server.address)), "j1")
        assert isinstance(screen.file, io.StringIO)
        assert "a.zip" in screen.file.getvalue()
        assert "━" in screen.file.getvalue()
        assert "AP50 0.750" in screen.file.getvalue()


class TestModels:
    def test_import(self, server: FakeServer, run: Run, tmp_path: Path) -> None:
        (tmp_path / "nano.pth").write_bytes(b"weights")
        server.answer("/models/import", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", JOB)
        assert run("models", "import", tmp_path / "nano.pth", "--classes", '["a"]').strip() == "m1"
        (body,) = server.bodies("/models/import")
        assert b'name="weights"; filename="nano.pth"' in body
        assert b'name="classes"\r\n\r\n["a"]' in body
        run("models", "import", "nowhere.pth", fails=str(tmp_path / "nowhere.pth"))

    def test_names(self, server: FakeServer, run: Run) -> None:
        server.answer("/models/m1", b"", 204)
        run("models", "rename", "m1", "better")
        run("models", "alias", "m1", "production")
        run("models", "alias", "m1")
        assert [json.loads(asked.body) for asked in server.asked] == [
            {"name": "better"},
            {"alias": "production"},
            {"alias": None},
        ]

    def test_reproduce(self, server: FakeServer, run: Run) -> None:
        outcome = {
            "summary": "all 9 tensors are the same to the bit",
            "differences": ["torch: 1 then, 2 now"],
        }
        server.answer("/models/m1/reproduce", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", {**JOB, "result": {"model_id": "m2", "reproduction": outcome}})
        printed = run("models", "reproduce", "m1", "--device", "cpu")
        assert printed.splitlines()[-1] == "m2"
        assert [json.loads(body) for body in server.bodies("/models/m1/reproduce")] == [{"device": "cpu"}]
        run("models", "reproduce", "m1")
        assert server.bodies("/models/m1/reproduce")[-1] == b"{}"

    def test_download(self, server: FakeServer, run: Run, tmp_path: Path) -> None:
        server.answer("/models/m1/weights", b"weights", kind="application/octet-stream")
        assert run("models", "download", "m1", "--format", "onnx").strip() == "m1.onnx"
        assert (tmp_path / "m1.onnx").read_bytes() == b"weights"
        server.answers.clear()
        run("models", "download", "m2", fails="not_found")
        assert [path.name for path in tmp_path.iterdir()] == ["m1.onnx"]


PROFILE = {
    "device": "cpu",
    "input_size": [64, 96],
    "batch_size": 2,
    "layers": 450,
    "parameters": 1234567,
    "gradients": 1234567,
    "sparsity": 0.25,
    "gflops": 1.2345,
    "gflops_extrapolated": None,
    "memory": {"peak_bytes": None, "measured": "on the CPU"},
    "parts": [
        {
            "part": "neck",
            "parameters": 1000,
            "gflops": 0.5,
            "forward_ms": 1.5,
            "forward_ms_std": 0.25,
            "backward_ms": None,
            "backward_ms_std": None,
            "input_shapes": [[2, 64, 8, 12], [2, 128, 4, 6]],
            "output_shapes": [[2, 64, 8, 12]],
        }
    ],
    "tensors": [
        {"index": 0, "name": "a.b", "gradient": True, "count": 1, "shape": [1], "mean": 2.0, "std": None}
    ],
    "modules": [{"index": 3, "name": "head.x", "class": "Conv2d"}],
}
PRUNED = {
    "model_id": "m2",
    "parameters": {"before": 1000, "after": 500},
    "gflops": {"before": 1.0, "after": 0.5},
    "sparsity": {"before": 0.0, "after": 0.0},
    "ap": {"before": 0.2889, "after": None},
    "latency_ms": {"onnxruntime": {"before": 12.0, "after": 8.0}},
    "file_bytes": {"onnx": {"before": 4000, "after": 2000}},
}


class TestAnalysis:
    def test_profile(self, server: FakeServer, run: Run) -> None:
        server.answer("/models/m1/profile", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", {**JOB, "result": PROFILE})
        shown = run("models", "profile", "m1", "--input-size", "64x96", "--type", "Conv2d", "--verbose")
        (body,) = map(json.loads, server.bodies("/models/m1/profile"))
        assert (body["input_size"], body["type"], body["verbose"]) == ([64, 96], "Conv2d", True)
        lines = [" ".join(line.split()) for line in shown.splitlines()]
        for line in (
            "parameters 1,234,567",
            "input 2x3x64x96 on cpu",
            "peak memory unknown",
            "neck 1,000 0.500 1.50 ± 0.25 2x64x8x12 2x128x4x6 2x64x8x12",
            "3 Conv2d head.x",
            "0 yes 1 1 2 a.b",
        ):
            assert line in lines
        assert json.loads(run("models", "profile", "m1", "--input-size", "64", "--json")) == PROFILE
        assert json.loads(server.bodies("/models/m1/profile")[-1])["input_size"] == 64

    @pytest.mark.parametrize("size", ["64x", "a", "1x2x3", "²"])
    def test_a_size_that_is_none(self, run: Run, size: str) -> None:
        run("models", "profile", "m1", "--input-size", size, fails="height x width as 640x320")

    def test_prune(self, server: FakeServer, run: Run) -> None:
        server.answer("/models/m1/prune", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", {**JOB, "result": PRUNED})
        shown = run("models", "prune", "m1", "--scope", "channels", "--finetune-epochs", "3")
        (body,) = map(json.loads, server.bodies("/models/m1/prune"))
        assert body == {
            "amount": 0.3,
            "scope": "channels",
            "finetune_epochs": 3,
            "split": "val",
            "device": "auto",
        }
        lines = [" ".join(line.split()) for line in shown.splitlines()]
        assert lines[1:5] == [
            "parameters 1,000 500",
            "GFLOPs 1.000 0.500",
            "sparsity 0.0000 0.0000",
            "AP 0.2889",
        ]
        assert "onnxruntime ms 12.0 8.0" in lines
        assert lines[-1] == "m2"
        assert json.loads(run("models", "prune", "m1", "--json")) == PRUNED

    def test_evaluate(self, server: FakeServer, run: Run) -> None:
        server.answer("/models/m1/evaluate", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", {**JOB, "result": {"evaluation_id": "e1"}})
        plain = {"id": "e1", "metrics": {"ap": 0.25, "split": "val", "per_class": []}, "tta": None}
        server.answer("/evaluations/e1", plain)
        shown = run("models", "evaluate", "m1", "d1", "--split", "test").splitlines()
        assert shown == ["METRIC  VALUE", "ap      0.2500", "e1"]
        assert json.loads(server.bodies("/models/m1/evaluate")[0]) == {
            "dataset_id": "d1",
            "split": "test",
            "device": "auto",
        }
        assert json.loads(run("models", "evaluate", "m1", "d1", "--json")) == plain

    def test_evaluate_with_passes(self, server: FakeServer, run: Run) -> None:
        server.answer("/models/m1/evaluate", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", {**JOB, "result": {"evaluation_id": "e1"}})
        tta = {"plain": {"ap": 0.25}, "augmented": {"ap": None}, "difference": {"ap": -0.00001}}
        server.answer("/evaluations/e1", {"id": "e1", "metrics": {}, "tta": tta})
        shown = run("models", "evaluate", "m1", "d1", "--tta").splitlines()
        assert [line.split() for line in shown] == [
            ["METRIC", "PLAIN", "AUGMENTED", "DIFFERENCE"],
            ["ap", "0.2500", "-0.00001"],
            ["e1"],
        ]
        assert json.loads(server.bodies("/models/m1/evaluate")[0])["tta"] is True


PLAN_ROW = {
    "backend": "openvino",
    "precision": "bf16",
    "streams": 2,
    "threads": 1,
    "batch_size": 1,
    "pictures_per_s": 115.0,
    "p50_ms": 17.2,
    "p95_ms": 18.9,
    "alone_p50_ms": 9.7,
    "alone_p95_ms": 10.4,
    "ap": 0.2921,
    "ap_drop": -0.0032,
    "same_boxes": 0.978,
    "agrees": True,
}
PLAN = {
    "device": "cpu",
    "processor": "Fast Core",
    "cores": 2,
    "rows": [{**PLAN_ROW, "backend": "slow", "pictures_per_s": 9.0, "ap": None, "agrees": False}, PLAN_ROW],
    "winner": PLAN_ROW,
    "pinned": {name: PLAN_ROW[name] for name in ("backend", "precision", "streams", "threads", "batch_size")},
    "closest": None,
    "unmet": [],
}


class TestBench:
    def test_the_table_is_shown_and_written(self, server: FakeServer, run: Run, tmp_path: Path) -> None:
        server.answer("/models/m1/plan", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", {**JOB, "result": PLAN})
        file = tmp_path / "plan.json"
        shown = run("bench", "m1", "--rps", "60", "--dataset", "d1", "--json", str(file))
        (body,) = map(json.loads, server.bodies("/models/m1/plan"))
        expected = {"rps": 60.0, "dataset_id": "d1", "split": "val", "device": "auto"}
        assert body == {**expected, "seconds": 2.0, "pin": True}
        assert json.loads(file.read_text(encoding="utf-8")) == PLAN
        rows = [line.replace("│", " ").split() for line in shown.splitlines()]
        best = next(row for row in rows if row[:1] == ["*"])
        other = next(row for row in rows if row[:1] == ["differs"])
        assert rows.index(best) < rows.index(other)
        assert " ".join(best[1:]) == "openvino bf16 2 x 1 1 115.0 17.2 18.9 9.7 0.2921 97.8%"

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({}, "served with openvino bf16, 2 x 1 thread, batches of 1 from now on"),
            ({"pinned": None}, "best is openvino bf16, 2 x 1 thread, batches of 1; nothing was pinned"),
            (
                {"pinned": None, "winner": None, "closest": PLAN_ROW, "unmet": ["rps: too few"]},
                "closest is openvino bf16, 2 x 1 thread, batches of 1; nothing was pinned",
            ),
        ],
    )
    def test_it_says_what_is_served_from_now_on(self, changes: dict[str, Any], line: str) -> None:
        lines = list(bench._outcome({**PLAN, **changes, "beside": "others used 43%"}))
        assert line in lines[-1]
        assert lines[0] == "others used 43%"

    def test_wishes_that_nothing_reaches_have_an_exit_status_of_their_own(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        server.answer("/models/m1/plan", {**JOB, "status": "queued"}, 202)
        unmet = {**PLAN, "winner": None, "pinned": None, "closest": PLAN_ROW, "unmet": ["rps: too few"]}
        server.answer("/jobs/j1", {**JOB, "result": unmet})
        file = tmp_path / "plan.json"
        done = CliRunner().invoke(commands.app, ["bench", "m1", "--rps", "9000", "--json", str(file)])
        assert done.exit_code == 3
        assert "rps: too few" in done.output
        assert json.loads(file.read_text(encoding="utf-8")) == unmet

    def test_a_refusal_speaks_of_the_options(self, server: FakeServer, run: Run) -> None:
        needs = "a plan needs real pictures; name one as `dataset_id`"
        errors = [{"place": "body", "pointer": "/dataset_id", "problem": needs}]
        problem = {**PROBLEM, "detail": f"/dataset_id: {needs}", "errors": errors}
        server.answer("/models/m1/plan", problem, 422, "application/problem+json")
        run("bench", "m1", fails="--dataset: a plan needs real pictures; name one as `--dataset`  [")
        server.answer("/train", problem, 422, "application/problem+json")
        run("train", "d1", fails="DATASET: a plan needs")

    def test_what_is_no_field_keeps_its_name_in_a_refusal(self, server: FakeServer, run: Run) -> None:
        errors = [
            {"place": "body", "pointer": "/rps", "problem": "must be above 0, as /rps: of `rpsx` is"},
            {"place": "body", "pointer": "/rpsx", "problem": "not known; did you mean `rps`?"},
        ]
        problem = {**PROBLEM, "detail": "2 fields are wrong", "errors": errors}
        server.answer("/models/m1/plan", problem, 422, "application/problem+json")
        run("bench", "m1", fails="--rps: must be above 0, as /rps: of `rpsx` is")
        run("bench", "m1", fails="/rpsx: not known; did you mean `--rps`?")

    def test_a_file_that_cannot_be_written_is_told_before_the_work(self, run: Run, tmp_path: Path) -> None:
        run("bench", "m1", "--json", str(tmp_path / "none" / "a.json"), fails="there is no folder")


class TestDetect:
    def test_passes_are_chosen(self, server: FakeServer, run: Run, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"?")
        server.answer("/detect", {"model": "m1", "images": [{"width": 4, "height": 3, "detections": []}]})
        run("detect", "a.jpg", "--tta-scales", "1,1.3", "--tta-flips", "none,lr")
        asked = httpx2.URL(server.asked[0].path).params
        assert json.loads(asked["tta"]) == {"scales": [1, 1.3], "flips": ["none", "lr"]}
        run("detect", "a.jpg", "--tta-flips", "lr", fails="--tta-scales")
        run("detect", "a.jpg", "--tta-scales", "big", fails="wants numbers such as 1,1.3")

    def test_files_and_folders_in_order_and_a_busy_server_is_asked_again(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "pictures" / "deep").mkdir(parents=True)
        for name in ("deep/b.PNG", "a.jpg", "notes.txt"):
            (tmp_path / "pictures" / name).write_bytes(name.encode())
        answer = {"model": "m1", "images": [{"width": 4, "height": 3, "detections": []}]}
        server.answer("/detect", {**PROBLEM, "status": 503}, 503, "application/problem+json")
        server.answer("/detect", answer)
        options = ("--class", "cat", "--class", "dog", "--score-threshold", 0.5, "--model", "m1", "--tta")
        found = json.loads(run("detect", "pictures", "pictures/notes.txt", *options))
        assert [image["file"] for image in found["images"]] == [
            "pictures/a.jpg",
            "pictures/deep/b.PNG",
            "pictures/notes.txt",
        ]
        assert "classes=cat&classes=dog" in server.asked[0].path
        assert "tta=true" in server.asked[0].path
        assert len(server.asked) == 4

    def test_a_bad_picture_is_listed_and_fails_the_command(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "a.jpg").write_bytes(b"?")
        server.answer("/detect", {**PROBLEM, "code": "damaged_image"}, 422, "application/problem+json")
        printed = run("detect", "a.jpg", fails="1 of 1 pictures could not be used")
        assert "damaged_image" in json.loads(printed)["images"][0]["error"]

    def test_what_is_wrong_with_every_picture_is_said_once(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        for number in range(50):
            (tmp_path / f"{number}.jpg").write_bytes(b"?")
        server.answer("/detect", {**PROBLEM, "code": "no_model"}, 409, "application/problem+json")
        assert run("detect", tmp_path, fails="[no_model]") == ""

    def test_a_video_becomes_a_job_whose_files_are_fetched(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "clip.MP4").write_bytes(b"a video")
        result = {"frames": 4, "detections": 2, "duration_s": 1.2, "findings": [], "stored_bytes": 9}
        links = {"detections": "/jobs/j1/detections", "video": "/jobs/j1/video"}
        job = {**JOB, "kind": "detect-video", "result": result, "model_id": "m1", "links": links}
        server.answer("/detect", job, 202)
        server.answer("/jobs/j1", job)
        server.answer("/jobs/j1/detections", b'{"frame":0}\n', 200, "application/x-ndjson")
        server.answer("/jobs/j1/video", b"webm", 200, "video/webm")
        options = ("--every", 3, "--class", "cat", "--class", "dog", "--out", "made/here")
        (shown,) = json.loads(run("detect", "clip.MP4", *options))["videos"]
        assert (shown["file"], shown["job"], shown["model"], shown["frames"]) == ("clip.MP4", "j1", "m1", 4)
        made = {path.name: path.read_bytes() for path in (tmp_path / "made" / "here").iterdir()}
        assert made == {"clip.detections.ndjson": b'{"frame":0}\n', "clip.annotated.webm": b"webm"}
        (sent,) = server.bodies("/detect")
        for name, value in (("every", "3"), ("annotate", "true"), ("classes", "dog")):
            assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in sent
        assert b'name="video"; filename="clip.MP4"' in sent

    def test_videos_go_alone_and_need_names_of_their_own(self, run: Run, tmp_path: Path) -> None:
        for name in ("a.mp4", "a.avi", "b.jpg"):
            (tmp_path / name).write_bytes(b"?")
        run("detect", "a.mp4", "b.jpg", fails="b.jpg is no video")
        run("detect", "a.mp4", "a.avi", fails="two of the videos have one name")

    def test_what_an_error_is_stands_there_once(self, server: FakeServer, run: Run, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"?")
        said = {"title": "Not a picture", "detail": "not a picture (JPEG)", "code": "unsupported_image"}
        server.answer("/detect", said, 415, "application/problem+json")
        (image,) = json.loads(run("detect", "a.jpg", fails="1 of 1"))["images"]
        assert image["error"] == "Not a picture (JPEG)  [unsupported_image]"

    def test_files_of_a_folder_that_are_not_looked_at_are_counted(
        self, server: FakeServer, run: Run, tmp_path: Path
    ) -> None:
        for name in ("pictures/a.jpg", "pictures/b.GIF", "pictures/c.gif", "pictures/LICENSE", "other/d.tif"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"?")
        server.answer("/detect", {"model": "m1", "images": [{"width": 4, "height": 3, "detections": []}]})
        run("detect", "pictures", says="3 files were not looked at (.gif, without a suffix)")
        run("detect", "pictures", "pictures/c.gif", says="2 files were not looked at (")
        run("detect", "other", fails="other; 1 file was not looked at (.tif)")

    def test_nothing_to_look_at(self, run: Run, tmp_path: Path) -> None:
        run("detect", tmp_path, fails="no picture")
        run("detect", "nowhere", fails=str(tmp_path / "nowhere"))


class TestWeights:
    @pytest.fixture(autouse=True)
    def release(self, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "HOST", server.address)
        server.answer(f"/{weights.FILES['yolox-nano']}", b"weights", kind="application/octet-stream")
        server.answer("/version", {})

    def test_they_are_downloaded_and_imported(self, server: FakeServer, run: Run) -> None:
        server.answer("/models/import", {**JOB, "status": "queued"}, 202)
        server.answer("/jobs/j1", JOB)
        assert run("weights", "get", "yolox-nano").strip() == "m1"
        assert b"weights" in server.bodies("/models/import")[0]
        assert b"yolox-nano" in server.bodies("/models/import")[0]

    def test_or_only_saved(self, run: Run, tmp_path: Path) -> None:
        run("weights", "get", "yolox-nano", "--output", "here.pth")
        assert (tmp_path / "here.pth").read_bytes() == b"weights"

    def test_another_sha256_is_refused(self, run: Run, tmp_path: Path) -> None:
        run("weights", "get", "yolox-nano", "--sha256", "0" * 64, "--output", "here.pth", fails="sha256")
        assert not (tmp_path / "here.pth").exists()

    def test_what_cannot_be_had_is_said_with_another_way(self, run: Run) -> None:
        run("weights", "get", "yolox-s", "--output", "s.pth", fails="harrier models import FILE")
        run("weights", "get", "yolox-xxl", fails="yolox-nano, yolox-tiny")

    def test_the_list(self, run: Run) -> None:
        assert "yolox_x.pth" in run("weights", "list")

    def test_a_network_that_is_off(self, tmp_path: Path) -> None:
        def refuse(request: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectError("Network is unreachable")

        with pytest.raises(CommandError, match="Network is unreachable"):
            weights.fetch("https://x/y.pth", tmp_path / "y", transport=httpx2.MockTransport(refuse))


class TestKeys:
    def test_a_life_of_a_key(self, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        runner = CliRunner()
        secret = runner.invoke(commands.app, ["keys", "create", "lab", "--scope", "read", "--days", "7"])
        assert secret.stdout.startswith("hr_")
        listed = runner.invoke(commands.app, ["keys", "list"]).stdout.splitlines()
        identity = listed[1].split()[0]
        assert listed[1].split()[2:4] == ["lab", "read"]
        assert secret.stdout.strip() not in "".join(listed)
        assert runner.invoke(commands.app, ["keys", "revoke", identity]).exit_code == 0
        assert runner.invoke(commands.app, ["keys", "list"]).stdout.splitlines()[1].endswith("revoked")
        assert "no key nobody" in str(runner.invoke(commands.app, ["keys", "revoke", "nobody"]).exception)

    def test_a_scope_that_is_none_is_told_without_words_of_pydantic(self) -> None:
        refused = CliRunner().invoke(commands.app, ["keys", "create", "x", "--scope", "foo"])
        assert refused.exit_code == 2
        assert "Invalid value for '--scope': 'foo' is not one of" in refused.output

    def test_a_list_tells_time_to_the_second(self, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        CliRunner().invoke(commands.app, ["keys", "create", "lab"])
        assert re.search(
            r"T\d\d:\d\d:\d\d\+00:00 ", CliRunner().invoke(commands.app, ["keys", "list"]).stdout
        )

    @pytest.mark.parametrize("form", ["{prefix}", "hr_{prefix}", "{secret}", "lab"])
    def test_a_key_is_revoked_by_whatever_names_it(
        self, environment: pytest.MonkeyPatch, tmp_path: Path, form: str
    ) -> None:
        (tmp_path / "home").mkdir()
        runner = CliRunner()
        runner.invoke(commands.app, ["keys", "create", "other"])
        secret = runner.invoke(commands.app, ["keys", "create", "lab"]).stdout.strip()
        given = form.format(prefix=secret.split("_")[1], secret=secret)
        revoked = runner.invoke(commands.app, ["keys", "revoke", given])
        assert f"the key lab (hr_{secret.split('_')[1]}) is revoked" in revoked.output
        again = runner.invoke(commands.app, ["keys", "revoke", given])
        for said in (revoked.output, str(again.exception)):
            assert secret not in said
        states = [
            line.split()[-1] for line in runner.invoke(commands.app, ["keys", "list"]).stdout.splitlines()
        ]
        assert states[1:] == ["valid", "revoked"]

    def test_a_name_that_two_keys_have_names_none(
        self, environment: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "home").mkdir()
        runner = CliRunner()
        secrets = [runner.invoke(commands.app, ["keys", "create", "lab"]).stdout.strip() for _ in range(2)]
        refused = str(runner.invoke(commands.app, ["keys", "revoke", "lab"]).exception)
        assert all(f"hr_{secret.split('_')[1]}" in refused for secret in secrets)
        assert not any(secret in refused for secret in secrets)
        for typed in (secrets[0][:-1] + "?", secrets[0].split("_", 2)[2], "b" * 40):
            assert typed not in without_secret(typed)
