"""Datasets over HTTP: upload, look inside, rename, delete."""

from __future__ import annotations

import io
import resource
import zipfile
from collections.abc import Iterator

import msgspec
import pytest

from app.database.tables import AuditRow, Dataset, Job, OutboxRow
from app.errors import EngineUnavailableError
from app.jobs.states import JobKind, Queue
from detection.data.summary import summarise
from tests.fakes import JPEG
from tests.integration.api.conftest import (
    DATASET,
    Api,
    MakeApi,
    assert_problem,
    pointers,
    small_zip,
)


def test_an_upload_becomes_a_dataset_and_a_job(api: Api) -> None:
    answer = api.upload(
        name="pets", format="yolo", validation_fraction="0.3", seed="7", classes='{"drop": ["a"]}'
    )
    assert answer.status_code == 202
    shown = answer.json()
    assert answer.headers["location"] == f"/datasets/{shown['id']}"
    assert (shown["status"], shown["name"], shown["requested_format"]) == ("importing", "pets", "yolo")
    assert api.get(answer.headers["location"]).json() == shown

    job = api.get(shown["links"]["job"]).json()
    assert job["kind"] == "dataset-import"
    assert job["config"] == {
        "dataset_id": shown["id"],
        "upload_key": f"uploads/{shown['id']}/archive",
        "format": "yolo",
        "validation_fraction": 0.3,
        "seed": 7,
        "classes": {"merge": {}, "rename": {}, "drop": ["a"]},
    }
    with api.state.storage.open(job["config"]["upload_key"]) as stored:
        assert stored.read() == small_zip()
    assert api.bell.rings == [(job["id"], Queue.CPU)]
    assert [row.job_id for row in api.rows(OutboxRow)] == [job["id"]]
    assert [row.action for row in api.rows(AuditRow)] == ["dataset.create"]


def test_a_lost_ring_loses_nothing(api: Api) -> None:
    api.bell.broken = True
    assert api.upload().status_code == 202
    assert len(api.rows(OutboxRow)) == 1


def test_the_name_is_taken_from_the_file(api: Api) -> None:
    assert api.upload().json()["name"] == "cells"


def test_a_file_of_an_unknown_kind_is_refused_at_once(api: Api) -> None:
    assert_problem(api.upload(b"MZ this is no archive"), 415, "unsupported_media")
    assert api.rows(Dataset) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "csv"),
        ("validation_fraction", "1.5"),
        ("validation_fraction", "nan"),
        ("seed", "-1"),
        ("classes", "[1]"),
        ("classes", '{"droop": []}'),
        ("classes", "not json"),
        ("name", "two\nlines"),
        ("surprise", "x"),
    ],
)
def test_a_wrong_field_is_named(api: Api, field: str, value: str) -> None:
    problem = assert_problem(api.upload(**{field: value}), 422, "invalid_input")
    assert pointers(problem)[0].startswith(f"/{field}")
    assert api.rows(Job) == []


def test_what_a_failed_upload_leaves_is_removed(api: Api) -> None:
    api.upload(format="csv")
    api.upload(b"no archive")
    assert [path for path in (api.settings.scratch / "uploads").rglob("*") if path.is_file()] == []
    assert list(api.state.storage.keys("uploads/")) == []


def test_the_file_is_needed_and_needed_once(api: Api) -> None:
    nothing = api.client.post("/datasets", files={"other": ("x", b"x")})
    assert pointers(assert_problem(nothing, 422, "invalid_input")) == ["/other"]
    hard_to_point_at = {"a/b~": ("x", b"x")}
    for path in ("/datasets", "/models/import", "/detect"):
        refused = api.client.post(path, files=hard_to_point_at)
        assert pointers(assert_problem(refused, 422, "invalid_input")) == ["/a~1b~0"], path
    missing = api.client.post("/datasets", data={"name": "x"}, files={})
    assert_problem(missing, 415, "unsupported_media")
    twice = api.client.post(
        "/datasets", files=[("archive", ("a", small_zip())), ("archive", ("b", small_zip()))]
    )
    assert pointers(assert_problem(twice, 422, "invalid_input")) == ["/archive"]


def test_a_body_that_is_no_form_is_refused(api: Api) -> None:
    sent = api.client.post(
        "/datasets", content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert_problem(sent, 415, "unsupported_media")
    sent = api.client.post(
        "/datasets", content=b"--x\r\n", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert_problem(sent, 400, "bad_request")


def test_a_file_over_the_limit_is_refused_while_it_comes(make_api: MakeApi) -> None:
    api = make_api(max_upload_bytes=1000)
    assert_problem(api.upload(b"PK\x03\x04" + b"x" * 2000), 413, "payload_too_large")
    assert [path for path in api.settings.scratch.rglob("*") if path.is_file()] == []


def test_a_disk_that_would_be_full_is_not_written_to(make_api: MakeApi) -> None:
    assert_problem(make_api(min_free_bytes=2**60).upload(), 507, "no_space")


def test_a_full_queue_takes_nothing_more(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=1)
    assert api.upload().status_code == 202
    answer = api.upload()
    assert_problem(answer, 503, "overloaded")
    assert int(answer.headers["retry-after"]) > 0
    assert len(api.rows(Dataset)) == 1
    assert len(list(api.state.storage.keys("uploads/"))) == 1


def test_datasets_are_listed_newest_first_in_pages(api: Api) -> None:
    ids = [api.ready_dataset() for _ in range(5)][::-1]
    first = api.get("/datasets?limit=2").json()
    second = api.get("/datasets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    third = api.get("/datasets", params={"limit": 2, "cursor": second["next_cursor"]}).json()
    assert [item["id"] for page in (first, second, third) for item in page["items"]] == ids
    assert third["next_cursor"] is None


def test_a_dataset_can_be_renamed_and_nothing_else(api: Api) -> None:
    dataset_id = api.ready_dataset()
    assert api.client.patch(f"/datasets/{dataset_id}", json={"name": " new "}).json()["name"] == "new"
    refused = api.client.patch(f"/datasets/{dataset_id}", json={"name": "x", "classes": []})
    assert pointers(assert_problem(refused, 422, "invalid_input")) == ["/classes"]
    assert api.events(f"datasets/{dataset_id}")[-1]["name"] == "new"


def test_a_deleted_dataset_leaves_no_file(api: Api) -> None:
    dataset_id = api.ready_dataset()
    assert api.client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert_problem(api.get(f"/datasets/{dataset_id}"), 404, "not_found")
    assert_problem(api.client.delete(f"/datasets/{dataset_id}"), 404, "not_found")
    assert list(api.state.storage.keys(f"datasets/{dataset_id}/")) == []
    assert api.events(f"datasets/{dataset_id}")[-1] == {"status": "deleted"}


def test_a_dataset_in_use_stays(api: Api) -> None:
    dataset_id = api.ready_dataset()
    claim = api.claimed(dataset_id=dataset_id)
    problem = assert_problem(api.client.delete(f"/datasets/{dataset_id}"), 409, "in_use")
    assert problem["links"] == {"job": f"/jobs/{claim.job_id}"}
    api.post(f"/jobs/{claim.job_id}/cancel")
    assert_problem(api.client.delete(f"/datasets/{dataset_id}"), 409, "in_use")


def test_a_job_outlives_its_dataset(api: Api) -> None:
    dataset_id = api.ready_dataset()
    job_id = api.job(dataset_id=dataset_id)
    api.post(f"/jobs/{job_id}/cancel")
    assert api.client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert api.get(f"/jobs/{job_id}").json()["dataset_id"] is None
    assert_problem(api.post(f"/jobs/{job_id}/resume"), 409, "not_resumable")


def test_the_report_lists_every_finding(api: Api) -> None:
    report = api.get(f"/datasets/{api.ready_dataset()}/report").json()
    assert report["status"] == "ready"
    assert report["counts"] == {"box_empty": 1}
    assert report["findings"][0]["where"] == "line 3"
    assert report["findings"][0]["action"] == "dropped"


def test_a_rejected_dataset_says_why(api: Api) -> None:
    answer = api.upload().json()
    with api.session() as session:
        from app.jobs import protocol

        claim = protocol.claim_job(session, answer["job_id"], owner="w", lease_s=45)
        assert claim is not None
        failure = protocol.Failure("archive_path", "../x leads out of the archive")
        protocol.fail(session, claim.job_id, claim.fence, failure)
    shown = api.get(f"/datasets/{answer['id']}").json()
    assert shown["status"] == "rejected"
    assert shown["failure"] == {"code": "archive_path", "message": "../x leads out of the archive"}
    report = api.get(f"/datasets/{answer['id']}/report").json()
    assert report["counts"] == {"archive_path": 1}
    assert report["findings"][0]["severity"] == "error"
    assert_problem(api.get(f"/datasets/{answer['id']}/statistics"), 409, "dataset_not_ready")
    assert api.client.delete(f"/jobs/{answer['job_id']}").status_code == 204
    assert api.get(f"/datasets/{answer['id']}").json()["failure"] == shown["failure"]
    assert api.get(f"/datasets/{answer['id']}/report").json()["counts"] == {"archive_path": 1}


def test_a_cancelled_import_says_so(api: Api) -> None:
    answer = api.upload().json()
    assert api.post(f"/jobs/{answer['job_id']}/cancel").json()["status"] == "cancelled"
    shown = api.get(f"/datasets/{answer['id']}").json()
    assert shown["status"] == "rejected"
    assert shown["failure"] == {"code": "cancelled", "message": "the import was cancelled"}
    assert api.get(f"/datasets/{answer['id']}/report").json()["counts"] == {"cancelled": 1}


@pytest.mark.parametrize("part", ["report", "statistics", "images", "images/im000", "export?format=coco"])
def test_an_importing_dataset_shows_nothing_yet(api: Api, part: str) -> None:
    dataset_id = api.upload().json()["id"]
    assert_problem(api.get(f"/datasets/{dataset_id}/{part}"), 409, "dataset_not_ready")
    assert_problem(api.get(f"/datasets/nothing/{part}"), 404, "not_found")


def test_statistics_are_those_of_the_import(api: Api) -> None:
    statistics = api.get(f"/datasets/{api.ready_dataset()}/statistics").json()
    assert statistics == msgspec.to_builtins(summarise(DATASET))
    assert statistics["classes"][0]["boxes"] == {"train": 2, "val": 1, "test": 0}


def test_pictures_can_be_leafed_through(api: Api) -> None:
    here = f"/datasets/{api.ready_dataset()}/images"
    first = api.get(here, params={"limit": 4}).json()
    second = api.get(here, params={"limit": 4, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == [f"im{n:03d}" for n in range(6)]
    assert second["next_cursor"] is None
    assert first["items"][2]["findings"] == ["box_empty"]
    assert first["items"][0]["boxes"] == [
        {
            "label": "cat",
            "class_id": 0,
            "x1": 1,
            "y1": 2,
            "x2": 30,
            "y2": 40,
            "crowd": False,
            "difficult": False,
            "attributes": {},
        }
    ]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"split": "val"}, ["im004", "im005"]),
        ({"class": "dog"}, ["im001", "im003"]),
        ({"finding": "box_empty"}, ["im002"]),
        ({"split": "val", "class": "dog"}, []),
        ({"finding": "no_such_code"}, []),
    ],
)
def test_pictures_can_be_chosen(api: Api, query: dict[str, str], ids: list[str]) -> None:
    page = api.get(f"/datasets/{api.ready_dataset()}/images", params=query).json()
    assert [item["id"] for item in page["items"]] == ids


def test_a_page_ends_where_the_choice_ends(api: Api) -> None:
    page = api.get(f"/datasets/{api.ready_dataset()}/images", params={"class": "dog", "limit": 2}).json()
    assert page["next_cursor"] is None


def test_an_unknown_class_or_cursor_is_named(api: Api) -> None:
    here = f"/datasets/{api.ready_dataset()}/images"
    assert pointers(assert_problem(api.get(here, params={"class": "cow"}), 422, "invalid_input")) == [
        "/class"
    ]
    for cursor in ("####", "abc", "YWJj", "MTIzNDU2Nzg5MDEyMw=="):
        problem = assert_problem(api.get(here, params={"cursor": cursor}), 422, "invalid_input")
        assert pointers(problem) == ["/cursor"]


def test_a_picture_comes_from_the_engine(api: Api) -> None:
    here = f"/datasets/{api.ready_dataset()}/images/im001"
    answer = api.get(here, params={"boxes": "true", "max_side": 128})
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, JPEG, "image/jpeg")
    (content, boxes, max_side) = api.engine.rendered[-1]
    assert (content, max_side) == (b"picture im001", 128)
    assert [(box.label, box.x1, box.y2, box.score) for box in boxes] == [("dog", 1, 40, None)]
    assert api.get(here).status_code == 200
    assert api.engine.rendered[-1] == (b"picture im001", (), None)


def test_a_picture_that_is_known_is_not_sent_again(api: Api) -> None:
    here = f"/datasets/{api.ready_dataset()}/images/im001"
    etag = api.get(here).headers["etag"]
    assert api.get(here, headers={"If-None-Match": etag}).status_code == 304
    assert api.get(f"{here}?boxes=true", headers={"If-None-Match": etag}).status_code == 200
    assert len(api.engine.rendered) == 2


def test_an_unknown_picture_is_not_found(api: Api) -> None:
    dataset_id = api.ready_dataset()
    assert_problem(api.get(f"/datasets/{dataset_id}/images/im999"), 404, "not_found")
    assert_problem(api.get(f"/datasets/{dataset_id}/images/..%2Fmanifest"), 404, "not_found")
    assert_problem(api.get(f"/datasets/{dataset_id}/images/a.b"), 422, "invalid_input")
    assert_problem(api.get(f"/datasets/{dataset_id}/images/im001?max_side=1"), 422, "invalid_input")


def test_without_an_engine_a_picture_is_not_available(api: Api) -> None:
    api.engine.error = EngineUnavailableError("the engine is not running", retry_after_s=5)
    answer = api.get(f"/datasets/{api.ready_dataset()}/images/im001")
    assert_problem(answer, 503, "engine_unavailable")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_an_export_is_a_zip_with_every_picture(api: Api, form: str) -> None:
    answer = api.get(f"/datasets/{api.ready_dataset()}/export", params={"format": form})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        pictures = {name for name in archive.namelist() if name.endswith(".jpg")}
        assert len(pictures) == 6
        assert {archive.read(name) for name in pictures} == {f"picture im{n:03d}".encode() for n in range(6)}


def test_an_export_needs_a_format_we_write(api: Api) -> None:
    here = f"/datasets/{api.ready_dataset()}/export"
    assert_problem(api.get(here), 422, "invalid_input")
    assert_problem(api.get(here, params={"format": "csv"}), 422, "invalid_input")
    assert_problem(api.get(here, params={"format": "folders"}), 409, "not_writable")


def test_an_import_of_a_deleted_dataset_cannot_be_resumed(api: Api) -> None:
    job_id = api.job(JobKind.DATASET_IMPORT)
    api.post(f"/jobs/{job_id}/cancel")
    assert_problem(api.post(f"/jobs/{job_id}/resume"), 409, "not_resumable")


@pytest.fixture
def files_stay_small(api: Api) -> Iterator[None]:
    """Let every write beyond 2 MiB of a file fail, as a full disk does; the database was started before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 1024 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("files_stay_small")
def test_a_write_that_fails_is_told_and_leaves_nothing(api: Api) -> None:
    assert_problem(api.upload(b"PK\x03\x04" + b"x" * 5_000_000), 507, "no_space")
    assert [path for path in api.settings.scratch.rglob("*") if path.is_file()] == []
    assert api.upload().status_code == 202
