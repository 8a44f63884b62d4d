"""The whole API in this process, on SQLite and on PostgreSQL: the same tests on both."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from app.api.state import State
from app.database.tables import Dataset, Evaluation, Job, JobEvent, Model, ModelFile, new_id
from app.database.upgrade import upgrade_database
from app.datasets.contents import MANIFEST, REPORT, STATISTICS
from app.jobs import protocol
from app.jobs.states import JobKind
from app.main import create_app
from app.settings import Settings
from app.v2.errors import speaks_at
from detection.data.findings import Action, Finding, Severity
from detection.data.manifest import write_manifest
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.data.summary import summarise
from tests.fakes import FakeEngine, RecordingBell
from tests.services import running_postgres

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database; every test copies it."""
    home = tmp_path_factory.mktemp("template")
    upgrade_database(Settings(home=home, _env_file=None))
    return home / "harrier.sqlite3"


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Callable[[], str]]:
    """Makes PostgreSQL databases, all copies of a migrated one."""
    with running_postgres() as server:
        address = server.address
        admin = address.replace("postgresql+psycopg", "postgresql")
        _run(admin, "alter system set fsync = off")  # these tests are not about power failures
        _run(admin, "select pg_reload_conf()")
        template = address.replace("/postgres?", "/template_harrier?")
        _run(admin, "create database template_harrier")
        upgrade_database(Settings(home=Path(), database_url=template, _env_file=None))
        count = iter(range(10_000))

        def make() -> str:
            name = f"test_{next(count)}"
            _run(admin, f"create database {name} template template_harrier")
            return address.replace("/postgres?", f"/{name}?")

        yield make


def _run(address: str, statement: str) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for one test, in memory where possible: the service syncs every file that it writes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of a fresh, migrated database."""
    if request.param == "postgresql":
        make: Callable[[], str] = request.getfixturevalue("postgres_template")
        return make()
    copy = folder / "harrier.sqlite3"
    shutil.copy(request.getfixturevalue("sqlite_template"), copy)
    return f"sqlite:///{copy}"


@dataclass
class Api:
    """One running application, and short ways to put things into it."""

    app: FastAPI
    client: TestClient
    bell: RecordingBell
    engine: FakeEngine
    requests: int = field(default=0)

    @property
    def state(self) -> State:
        state: State = self.app.state.service
        return state

    @property
    def settings(self) -> Settings:
        return self.state.settings

    def session(self) -> Session:
        return self.state.sessions()

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.client.post(path, json=body, **options)

    def upload(self, content: bytes = b"", *, headers: Mapping[str, str] | None = None, **fields: str) -> Any:
        files = {"archive": ("cells.zip", content or small_zip(), "application/zip")}
        return self.client.post("/datasets", files=files, data=fields, headers=headers)

    def ready_dataset(self, **changes: Any) -> str:
        """Put a small imported dataset in place, as its import job would."""
        with self.session() as session:
            dataset = Dataset(**{**_dataset_row(), **changes})
            session.add(dataset)
            session.commit()
            _store_contents(self.state, dataset.id)
            return dataset.id

    def model(self, files: Mapping[str, bytes] | None = None, **changes: Any) -> str:
        """Put a model with files in place, as its training would."""
        with self.session() as session:
            model = Model(**{**_model_row(), **changes})
            session.add(model)
            session.flush()
            for form, content in (files or {}).items():
                key = f"{model.storage_prefix}{form}"
                self.state.storage.write(key, io.BytesIO(content))
                session.add(
                    ModelFile(
                        model_id=model.id,
                        format=form,
                        key=key,
                        size_bytes=len(content),
                        sha256=new_id().replace("-", "") * 2,
                    )
                )
            session.commit()
            return model.id

    def job(self, kind: JobKind = JobKind.TRAIN, **options: Any) -> str:
        with self.session() as session:
            job = protocol.add_job(session, kind, **options)
            session.commit()
            return job.id

    def claimed(self, kind: JobKind = JobKind.TRAIN, **options: Any) -> protocol.Claim:
        job_id = self.job(kind, **options)
        with self.session() as session:
            claim = protocol.claim_job(session, job_id, owner="worker-1", lease_s=45)
        assert claim is not None
        return claim

    def evaluation(self, model_id: str, **changes: Any) -> str:
        row = {"model_id": model_id, "dataset_sha256": "0" * 64, "split": "val", "metrics": {"ap": 0.5}}
        with self.session() as session:
            evaluation = Evaluation(**{**row, **changes})
            session.add(evaluation)
            session.commit()
            return evaluation.id

    def rows(self, table: type[Any]) -> list[Any]:
        with self.session() as session:
            return list(session.query(table).all())

    def events(self, subject: str) -> list[dict[str, Any]]:
        return [event.data for event in self.rows(JobEvent) if event.subject == subject]

    def job_row(self, job_id: str) -> Job:
        with self.session() as session:
            return session.get_one(Job, job_id)


MakeApi = Callable[..., Api]


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """An application that never starts; the others take over its routes and its description.

    To make both takes seconds of each test. They are the same for any settings: routes know their application
    only by the request.
    """
    app = create_app(
        Settings(home=tmp_path_factory.mktemp("pattern"), _env_file=None),
        bell=RecordingBell(),
        engine=FakeEngine(),
    )
    description = app.openapi()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.api.openapi._document", lambda app: description)
        yield app


@pytest.fixture
def make_api(database: str, folder: Path, pattern: FastAPI) -> Iterator[MakeApi]:
    """Makes applications with settings of the test's choice, all on one database."""
    open_clients: list[TestClient] = []

    def make(*, started: bool = True, **settings: Any) -> Api:
        values = {"home": folder / "home", "database_url": database, "min_free_bytes": 1, **settings}
        bell, engine = RecordingBell(), FakeEngine()
        app = create_app(Settings(**values, _env_file=None), bell=bell, engine=engine)
        app.router.routes[:] = pattern.router.routes
        client = TestClient(app, base_url=HERE, raise_server_exceptions=False)
        if started:
            client.__enter__()
            open_clients.append(client)
        return Api(app, client, bell, engine)

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


def small_zip(name: str = "data.yaml", content: str = "names: [a]") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is problem+json with this status and code; return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def assert_refused(response: Any, path: str, status: int, code: str) -> None:
    """Check that a path refuses in the shape that it has for errors."""
    if not speaks_at(path):
        assert_problem(response, status, code)
        return
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]


def pointers(problem: Mapping[str, Any]) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


CLASSES = ("cat", "dog")
IMAGES = tuple(
    ImageRecord(
        id=f"im{number:03d}",
        file_name=f"photos/{number:03d}.jpg",
        width=64,
        height=48,
        split=Split.TRAIN if number < 4 else Split.VAL,
        boxes=(BoxRecord(class_id=number % 2, x1=1, y1=2, x2=30, y2=40),) if number != 5 else (),
        sha256=f"{number:064d}",
    )
    for number in range(6)
)
DATASET = DatasetRecord(format="yolo", classes=CLASSES, images=IMAGES)
FINDINGS = [
    Finding(
        code="box_empty",
        severity=Severity.WARNING,
        action=Action.DROPPED,
        file="labels/002.txt",
        where="line 3",
        message="the box has no area",
        image_id="im002",
    )
]


def _dataset_row() -> dict[str, Any]:
    dataset_id = new_id()
    return {
        "id": dataset_id,
        "name": "pets",
        "status": "ready",
        "format": "yolo",
        "classes": list(CLASSES),
        "splits": {"train": {"images": 4, "boxes": 4}, "val": {"images": 2, "boxes": 1}},
        "options": {},
        "sha256": "a" * 64,
        "size_bytes": 1234,
        "storage_prefix": f"datasets/{dataset_id}/1",
    }


def _store_contents(state: State, dataset_id: str) -> None:
    prefix = f"datasets/{dataset_id}/1"
    files = {
        MANIFEST: write_manifest(DATASET),
        REPORT: msgspec.json.encode({"findings": FINDINGS, "counts": {"box_empty": 1}}),
        STATISTICS: msgspec.json.encode(summarise(DATASET)),
    }
    files |= {f"images/{image.id}": f"picture {image.id}".encode() for image in IMAGES}
    for name, content in files.items():
        state.storage.write(f"{prefix}/{name}", io.BytesIO(content))


def _model_row() -> dict[str, Any]:
    model_id = new_id()
    return {
        "id": model_id,
        "name": "pets model",
        "job_id": None,
        "origin": "imported",
        "architecture": "yolox-nano",
        "classes": list(CLASSES),
        "input_size": [416, 416],
        "record": {"architecture": "yolox-nano", "classes": list(CLASSES), "input_size_hw": [416, 416]},
        "metrics": None,
        "parameters": 896_754,
        "gflops": 1.07,
        "provenance": {},
        "storage_prefix": f"models/{model_id}/",
    }


def break_database(api: Api) -> None:
    """Take the tables away, as a database does that is restored or migrated."""
    engine = create_engine(api.settings.database_address)
    with engine.begin() as connection:
        connection.execute(text("drop table outbox"))
    engine.dispose()
