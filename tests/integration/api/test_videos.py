"""`POST /detect` with a video: what is taken, what is refused, and what the job's files are like to fetch."""

from __future__ import annotations

import io
from typing import Any

import pytest

from app.database.tables import IdempotencyKey, Job, new_id
from app.jobs import protocol
from app.jobs.states import JobKind
from app.videos.files import VideoFile, result_key
from tests.clips import clip
from tests.integration.api.conftest import Api, MakeApi, assert_problem, pointers

MP4 = {"Content-Type": "video/mp4"}
MADE = {VideoFile.DETECTIONS: b'{"model":"m1"}\n{"frame":0}\n', VideoFile.VIDEO: bytes(range(200))}


@pytest.fixture(scope="module")
def video() -> bytes:
    return clip()


def send(api: Api, video: bytes, *, headers: dict[str, str] | None = None, **query: Any) -> Any:
    return api.client.post("/detect", content=video, params=query, headers={**MP4, **(headers or {})})


def finished(api: Api, *, annotated: bool = True) -> str:
    """Put a job in place that has looked at a video, as its worker would."""
    claim = api.claimed(JobKind.DETECT_VIDEO, config={"size_bytes": 7}, model_id=new_id())
    files = {}
    for name in VideoFile if annotated else (VideoFile.DETECTIONS,):
        api.state.storage.write(result_key(claim.job_id, claim.fence, name), io.BytesIO(MADE[name]))
        files[name] = {"size_bytes": len(MADE[name]), "sha256": f"{len(files)}" * 64}
    size = sum(file["size_bytes"] for file in files.values())
    result = {"frames": 1, "files": files, "stored_bytes": size}
    with api.session() as session:
        protocol.succeed(session, claim.job_id, claim.fence, result)
        session.commit()
    return claim.job_id


def test_a_video_becomes_a_job_with_the_model_of_that_moment(api: Api, video: bytes) -> None:
    model_id = api.model(alias="production")
    answer = send(api, video, every=5, classes=["dog"], score_threshold=0.6, max_detections=7, nms_iou=0.5)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["queue"], job["status"], job["model_id"]) == (
        "detect-video",
        "gpu",
        "queued",
        model_id,
    )
    config = job["config"]
    asked = ("every", "classes", "score_threshold", "max_detections", "nms_iou", "annotate", "model_id")
    assert [config[name] for name in asked] == [5, ["dog"], 0.6, 7, 0.5, True, model_id]
    with api.state.storage.open(config["upload_key"]) as stored:
        assert stored.read() == video
    assert config["size_bytes"] == len(video)
    assert [job_id for job_id, _ in api.bell.rings] == [job["id"]]
    assert "detections" not in job["links"]
    assert list(api.settings.scratch.rglob("*.*")) == []


def test_the_same_key_with_the_same_video_gives_one_job(api: Api, video: bytes) -> None:
    api.model()
    headers = {"Idempotency-Key": "again"}
    first, second = (send(api, video, headers=headers, every=2) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert_problem(send(api, video, headers=headers, every=3), 422, "idempotency_key_reused")
    assert len(api.rows(Job)) == 1


def test_a_key_is_free_again_when_nothing_was_made(api: Api, video: bytes) -> None:
    api.model()
    headers = {"Idempotency-Key": "mine"}
    assert_problem(send(api, b"no video", headers=headers), 415, "unsupported_media")
    assert api.rows(IdempotencyKey) == []
    problem = assert_problem(send(api, video, headers={"Idempotency-Key": "two words"}), 422, "invalid_input")
    assert pointers(problem) == ["/idempotency-key"]


def test_without_a_model_nothing_is_taken(api: Api, video: bytes) -> None:
    assert_problem(send(api, video), 409, "no_model")
    assert_problem(send(api, video, model="nobody"), 404, "not_found")
    assert list(api.state.storage.keys("uploads/")) == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"tta": "true"}, "/tta"),
        ({"classifier": "breeds"}, "/classifier"),
        ({"every": 0}, "/every"),
        ({"classes": "unicorn"}, "/classes/0"),
    ],
)
def test_what_makes_no_sense_for_a_video_is_refused(
    api: Api, video: bytes, query: dict[str, Any], pointer: str
) -> None:
    api.model()
    problem = assert_problem(send(api, video, **query), 422, "invalid_input")
    assert pointers(problem) == [pointer]
    assert problem["errors"][0]["place"] == "query"
    assert api.rows(Job) == []


def test_a_picture_has_no_frames_to_leave_out(api: Api) -> None:
    api.model()
    answer = api.client.post(
        "/detect", content=b"x", params={"every": 2}, headers={"Content-Type": "image/jpeg"}
    )
    assert pointers(assert_problem(answer, 422, "invalid_input")) == ["/every"]


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\n", b"\xff\xd8\xff\xe0 a picture"])
def test_kinds_are_told_by_content(api: Api, content: bytes) -> None:
    api.model()
    assert_problem(send(api, content), 415, "unsupported_media")
    assert api.rows(Job) == []
    assert [path for path in api.settings.scratch.rglob("*") if path.is_file()] == []


def test_a_video_has_a_bound_of_its_own(make_api: MakeApi, video: bytes) -> None:
    api = make_api(max_detect_bytes=100, max_video_bytes=len(video))
    api.model()
    assert send(api, video).status_code == 202
    assert_problem(send(api, video + b"x"), 413, "payload_too_large")

    def unannounced() -> Any:
        yield video
        yield b"x"

    assert_problem(api.client.post("/detect", content=unannounced(), headers=MP4), 413, "payload_too_large")


def test_a_video_beyond_the_quota_or_the_disk_is_refused(make_api: MakeApi, video: bytes) -> None:
    small = make_api(storage_quota_bytes=len(video) - 1)
    small.model()
    assert_problem(send(small, video), 413, "quota_exceeded")
    full = make_api(min_free_bytes=1 << 60)
    assert_problem(send(full, video), 507, "no_space")
    assert full.rows(Job) == []


def test_a_full_queue_takes_no_video(make_api: MakeApi, video: bytes) -> None:
    api = make_api(max_queued_jobs=1)
    api.model()
    api.job()
    assert_problem(send(api, video), 503, "overloaded")
    assert list(api.state.storage.keys("uploads/")) == []


def test_results_are_links_of_a_job_that_has_succeeded(api: Api) -> None:
    links = api.get(f"/jobs/{finished(api)}").json()["links"]
    lines = api.get(links["detections"])
    assert (lines.content, lines.headers["content-type"]) == (
        MADE[VideoFile.DETECTIONS],
        "application/x-ndjson",
    )
    assert lines.headers["content-disposition"].endswith('.ndjson"')
    movie = api.get(links["video"])
    assert (movie.content, movie.headers["content-type"]) == (MADE[VideoFile.VIDEO], "video/webm")
    again = api.get(links["video"], headers={"If-None-Match": movie.headers["etag"]})
    assert again.status_code == 304
    part = api.get(links["video"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert_problem(api.get(links["video"], headers={"Range": "bytes=900-"}), 416, "range_not_satisfiable")


def test_without_an_annotated_video_there_is_no_link_to_one(api: Api) -> None:
    job_id = finished(api, annotated=False)
    assert "video" not in api.get(f"/jobs/{job_id}").json()["links"]
    assert_problem(api.get(f"/jobs/{job_id}/video"), 409, "file_not_made")
    assert api.get(f"/jobs/{job_id}/detections").status_code == 200


def test_other_jobs_have_no_results_of_this_kind(api: Api) -> None:
    waiting = api.job(JobKind.DETECT_VIDEO, config={})
    assert_problem(api.get(f"/jobs/{waiting}/detections"), 409, "job_active")
    assert api.post(f"/jobs/{waiting}/cancel").status_code == 202
    assert_problem(api.get(f"/jobs/{waiting}/detections"), 409, "file_not_made")
    assert_problem(api.get(f"/jobs/{api.job()}/detections"), 404, "not_found")
    assert_problem(api.get(f"/jobs/{new_id()}/video"), 404, "not_found")


def test_a_deleted_job_leaves_nothing(api: Api) -> None:
    job_id = finished(api)
    assert api.client.delete(f"/jobs/{job_id}").status_code == 204
    assert list(api.state.storage.keys("videos/")) == []
    assert_problem(api.get(f"/jobs/{job_id}/video"), 404, "not_found")


def test_usage_counts_what_waits_and_what_was_made(api: Api, video: bytes) -> None:
    api.model()
    job_id = finished(api)
    size = sum(len(content) for content in MADE.values())
    usage = api.get("/usage").json()
    assert usage["total_bytes"] == size
    assert usage["jobs"] == [{"id": job_id, "name": "", "bytes": size}]
    assert send(api, video).status_code == 202
    assert api.get("/usage").json()["total_bytes"] == size + len(video)


def as_form(api: Api, video: bytes, *, files: dict[str, Any] | None = None, **fields: Any) -> Any:
    sent = {"video": ("my clip.mp4", video, "video/mp4"), **(files or {})}
    return api.client.post("/detect", files=sent, data=fields)


def test_a_form_takes_a_video_with_its_name_and_parameters(make_api: MakeApi, video: bytes) -> None:
    api = make_api(max_video_bytes=len(video))
    model_id = api.model()
    answer = as_form(api, video, every="3", classes=["cat", "dog"], annotate="false", score_threshold="0.9")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["name"] == "my clip by pets model"
    config = job["config"]
    asked = ("every", "classes", "score_threshold", "annotate", "file_name", "model_id")
    assert [config[name] for name in asked] == [3, ["cat", "dog"], 0.9, False, "my clip.mp4", model_id]
    with api.state.storage.open(config["upload_key"]) as stored:
        assert stored.read() == video
    assert_problem(as_form(api, video + b"x"), 413, "payload_too_large")
    assert [path for path in api.settings.scratch.rglob("*") if path.is_file()] == []


def test_a_video_in_a_form_goes_alone(api: Api, video: bytes) -> None:
    api.model()
    picture = {"image": ("a.jpg", b"\xff\xd8\xff", "image/jpeg")}
    for answer in (as_form(api, video, files=picture), as_form(api, video, tta="true")):
        assert_problem(answer, 422, "invalid_input")
    assert_problem(as_form(api, b"no video"), 415, "unsupported_media")
    assert_problem(as_form(api, video, classes="unicorn"), 422, "invalid_input")
    assert api.rows(Job) == []
    assert list(api.state.storage.keys("uploads/")) == []


def test_a_form_of_pictures_is_bounded_as_before(make_api: MakeApi) -> None:
    api = make_api(max_detect_bytes=1000)
    api.model()
    picture = {"image": ("a.jpg", bytes(2000), "image/jpeg")}
    assert_problem(api.client.post("/detect", files=picture), 413, "payload_too_large")
