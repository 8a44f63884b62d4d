"""Jobs over HTTP: what they show, what may be done with them in which state."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from sqlalchemy import event

from app.database.tables import JobMetric, Model
from app.jobs import protocol
from app.jobs.states import JobKind, Queue
from tests.integration.api.conftest import Api, MakeApi, assert_problem, pointers


def test_a_queued_job_knows_its_place(api: Api) -> None:
    ids = [api.job() for _ in range(3)]
    api.job(JobKind.DATASET_IMPORT)
    assert [api.get(f"/jobs/{job_id}").json()["queue_position"] for job_id in ids] == [1, 2, 3]
    api.post(f"/jobs/{ids[0]}/cancel")
    assert [api.get(f"/jobs/{job_id}").json()["queue_position"] for job_id in ids] == [None, 1, 2]


def test_a_running_job_shows_what_it_reports(api: Api) -> None:
    claim = api.claimed(name="night run")
    with api.session() as session:
        protocol.report(
            session,
            claim.job_id,
            claim.fence,
            stage="training",
            progress={"epoch": 1, "epochs": 2, "step": 5, "steps": 10, "fraction": 0.5},
            metrics={"loss": 2.5},
            timing={"images_per_s": 12.0},
            eta_s=8.0,
        )
    job = api.get(f"/jobs/{claim.job_id}").json()
    assert (job["status"], job["stage"], job["name"], job["attempt"]) == (
        "running",
        "training",
        "night run",
        1,
    )
    assert job["progress"] == {"epoch": 1, "epochs": 2, "step": 5, "steps": 10, "fraction": 0.5}
    assert (job["metrics"], job["eta_s"]) == ({"loss": 2.5}, 8.0)
    assert [step["status"] for step in job["transitions"]] == ["queued", "running"]
    assert set(job["links"]) == {"self", "events", "log", "metrics", "cancel", "finish"}


def test_a_failed_job_says_why(api: Api) -> None:
    claim = api.claimed(dataset_id=api.ready_dataset())
    with api.session() as session:
        failure = protocol.Failure("diverged", "the loss is no longer finite", details={"step": 3})
        protocol.fail(session, claim.job_id, claim.fence, failure)
    job = api.get(f"/jobs/{claim.job_id}").json()
    assert job["status"] == "failed"
    assert job["failure"] == {
        "code": "diverged",
        "message": "the loss is no longer finite",
        "retryable": False,
        "details": {"step": 3},
    }
    assert job["ended_at"] is not None
    assert (job["stage"], job["eta_s"]) == ("failed", None)
    assert "resume" in job["links"]


def test_a_job_shows_the_device_that_it_got_and_forgets_it_when_it_waits_again(api: Api) -> None:
    claim = api.claimed(config={"device": "auto", "precision": "auto"})
    with api.session() as session:
        settled = {"device": "auto", "precision": "amp"}
        protocol.report(session, claim.job_id, claim.fence, device="1", config=settled)
    shown = api.get(f"/jobs/{claim.job_id}").json()["config"]
    assert shown == {"device": "1", "precision": "amp"}
    with api.session() as session:
        reason = protocol.Failure("worker_lost", "the worker was lost", retryable=True)
        protocol.requeue(session, claim.job_id, claim.fence, reason, costs_attempt=True)
    shown = api.get(f"/jobs/{claim.job_id}").json()["config"]
    assert shown == {"device": "auto", "precision": "amp"}


def test_a_job_changes_when_its_dataset_goes(api: Api) -> None:
    dataset_id = api.ready_dataset()
    job_id = api.job(dataset_id=dataset_id)
    api.post(f"/jobs/{job_id}/cancel")
    before = api.get(f"/jobs/{job_id}")
    assert before.json()["links"]["dataset"] == f"/datasets/{dataset_id}"
    assert api.client.delete(f"/datasets/{dataset_id}").status_code == 204
    after = api.get(f"/jobs/{job_id}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["dataset_id"] is None
    assert not {"dataset", "resume"} & set(after.json()["links"])
    assert after.json()["updated_at"] == before.json()["updated_at"]
    assert_problem(api.post(f"/jobs/{job_id}/resume"), 409, "not_resumable")


def test_a_succeeded_job_leads_to_its_model(api: Api) -> None:
    claim, model_id = api.claimed(), api.model()
    with api.session() as session:
        protocol.succeed(session, claim.job_id, claim.fence, {"model_id": model_id})
    job = api.get(f"/jobs/{claim.job_id}").json()
    assert job["result"] == {"model_id": model_id}
    assert job["links"]["model"] == f"/models/{model_id}"


def test_a_succeeded_evaluation_leads_to_its_numbers(api: Api) -> None:
    claim = api.claimed(JobKind.EVALUATE)
    with api.session() as session:
        protocol.succeed(session, claim.job_id, claim.fence, {"evaluation_id": "e1"})
    assert api.get(f"/jobs/{claim.job_id}").json()["links"]["evaluation"] == "/evaluations/e1"


def test_an_unchanged_job_is_not_sent_again(api: Api) -> None:
    job_id = api.job()
    etag = api.get(f"/jobs/{job_id}").headers["etag"]
    again = api.get(f"/jobs/{job_id}", headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    api.post(f"/jobs/{job_id}/cancel")
    assert api.get(f"/jobs/{job_id}", headers={"If-None-Match": etag}).status_code == 200


def test_a_step_forward_in_the_queue_is_a_change(api: Api) -> None:
    first, second = api.job(), api.job()
    etag = api.get(f"/jobs/{second}").headers["etag"]
    api.post(f"/jobs/{first}/cancel")
    assert api.get(f"/jobs/{second}", headers={"If-None-Match": etag}).status_code == 200


def test_jobs_are_listed_by_kind_and_status(api: Api) -> None:
    train, other = api.job(), api.job(JobKind.EXPORT)
    api.post(f"/jobs/{other}/cancel")

    def ids(**query: str) -> list[str]:
        return [job["id"] for job in api.get("/jobs", params=query).json()["items"]]

    assert ids() == [other, train]
    assert ids(kind="train") == [train]
    assert ids(status="cancelled") == [other]
    assert ids(kind="train", status="cancelled") == []
    assert ids(model_id="m1") == []
    assert pointers(assert_problem(api.get("/jobs?kind=cook"), 422, "invalid_input")) == ["/kind"]


def test_a_queued_job_is_cancelled_at_once(api: Api) -> None:
    job_id = api.job()
    answer = api.post(f"/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert_problem(api.post(f"/jobs/{job_id}/cancel"), 409, "job_ended")


def test_what_was_sent_for_a_job_that_nobody_began_goes_with_it(api: Api) -> None:
    kept, cancelled = (api.get(api.upload().json()["links"]["job"]).json() for _ in range(2))
    assert api.post(f"/jobs/{cancelled['id']}/cancel").json()["status"] == "cancelled"
    assert list(api.state.storage.keys("uploads/")) == [kept["config"]["upload_key"]]


def test_what_was_sent_stays_until_the_owner_of_a_job_has_stopped(api: Api) -> None:
    shown = api.upload().json()
    with api.session() as session:
        job_id = api.get(shown["links"]["job"]).json()["id"]
        assert protocol.claim_job(session, job_id, owner="worker-1", lease_s=45) is not None
    assert api.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelling"
    assert len(list(api.state.storage.keys("uploads/"))) == 1


def test_a_running_job_is_asked_to_stop(api: Api) -> None:
    claim = api.claimed()
    assert api.post(f"/jobs/{claim.job_id}/cancel").json()["status"] == "cancelling"
    assert api.post(f"/jobs/{claim.job_id}/cancel").json()["status"] == "cancelling"
    with api.session() as session:
        assert protocol.read_orders(session, claim.job_id, claim.fence).cancel


def test_only_a_running_training_can_be_finished(api: Api) -> None:
    claim = api.claimed()
    assert api.post(f"/jobs/{claim.job_id}/finish").status_code == 202
    with api.session() as session:
        assert protocol.read_orders(session, claim.job_id, claim.fence).finish
    for job_id in (api.job(), api.claimed(JobKind.EXPORT).job_id):
        assert_problem(api.post(f"/jobs/{job_id}/finish"), 409, "not_finishable")


def test_a_cancelled_training_can_be_resumed(api: Api) -> None:
    job_id = api.job(dataset_id=api.ready_dataset())
    api.post(f"/jobs/{job_id}/cancel")
    answer = api.post(f"/jobs/{job_id}/resume")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert api.bell.rings == [(job_id, Queue.GPU)]
    assert_problem(api.post(f"/jobs/{job_id}/resume"), 409, "not_resumable")


def test_only_a_training_can_be_resumed(api: Api) -> None:
    job_id = api.job(JobKind.EXPORT)
    api.post(f"/jobs/{job_id}/cancel")
    assert_problem(api.post(f"/jobs/{job_id}/resume"), 409, "not_resumable")


def test_a_full_queue_takes_no_resumed_job(make_api: MakeApi) -> None:
    api = make_api(max_queued_jobs=1)
    job_id = api.job(dataset_id=api.ready_dataset())
    api.post(f"/jobs/{job_id}/cancel")
    api.job()
    assert_problem(api.post(f"/jobs/{job_id}/resume"), 503, "overloaded")


def test_a_deleted_job_leaves_its_model(api: Api) -> None:
    claim = api.claimed()
    model_id = api.model(job_id=claim.job_id)
    checkpoints = api.settings.checkpoints / claim.job_id
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.pt").write_bytes(b"weights")
    log = api.settings.job_logs / f"{claim.job_id}.log"
    log.parent.mkdir(parents=True)
    log.write_text("a line of the job's process")
    assert_problem(api.client.delete(f"/jobs/{claim.job_id}"), 409, "job_active")
    with api.session() as session:
        protocol.report(session, claim.job_id, claim.fence, series=[(1, 1, {"loss": 1.0})], log_lines=["x"])
        protocol.succeed(session, claim.job_id, claim.fence, {"model_id": model_id})
    assert api.client.delete(f"/jobs/{claim.job_id}").status_code == 204
    assert_problem(api.get(f"/jobs/{claim.job_id}"), 404, "not_found")
    assert_problem(api.client.delete(f"/jobs/{claim.job_id}"), 404, "not_found")
    assert not checkpoints.exists()
    assert not log.exists()
    assert api.rows(JobMetric) == []
    assert [model.id for model in api.rows(Model)] == [model_id]


def test_the_series_is_whole_and_in_order(api: Api) -> None:
    claim = api.claimed()
    with api.session() as session:
        protocol.report(
            session, claim.job_id, claim.fence, series=[(2, 1, {"loss": 2.0}), (1, 1, {"loss": 3.0})]
        )
        protocol.report(session, claim.job_id, claim.fence, series=[(2, 1, {"loss": 2.0, "ap": 0.1})])
    rows = api.get(f"/jobs/{claim.job_id}/metrics").json()["rows"]
    assert rows == [
        {"step": 1, "epoch": 1, "values": {"loss": 3.0}},
        {"step": 2, "epoch": 1, "values": {"loss": 2.0, "ap": 0.1}},
    ]


@pytest.fixture
def long_series(api: Api) -> str:
    """A job with a row for each of 25 steps, an AP at two of them."""
    claim = api.claimed()
    rows = [(n, 1 + n // 9, {"loss": n / 4, **({"ap": 0.5} if n in (8, 17) else {})}) for n in range(1, 26)]
    with api.session() as session:
        protocol.report(session, claim.job_id, claim.fence, series=rows)
    return claim.job_id


@pytest.mark.parametrize("rows_at_once", [1, 5, 24, 25, 26])
def test_a_series_is_the_same_in_pages_of_any_size(
    api: Api, long_series: str, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr("app.jobs.series.ROWS_PER_PAGE", rows_at_once)
    answer = api.get(f"/jobs/{long_series}/metrics")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["job_id"] == long_series
    assert [(row["step"], row["epoch"], row["values"]["loss"]) for row in answer.json()["rows"]] == [
        (n, 1 + n // 9, n / 4) for n in range(1, 26)
    ]
    header, *lines = csv.reader(io.StringIO(api.get(f"/jobs/{long_series}/metrics?format=csv").text))
    assert header == ["step", "epoch", "ap", "loss"]
    assert [(line[0], line[3]) for line in lines] == [(str(n), str(n / 4)) for n in range(1, 26)]


@pytest.mark.parametrize(
    ("points", "steps"),
    [
        (2, [8, 13, 17, 25]),
        (5, [5, 8, 10, 15, 17, 20, 25]),
        (7, [4, 8, 12, 16, 17, 20, 24, 25]),
        (25, [*range(1, 26)]),
        (20_000, [*range(1, 26)]),
    ],
)
def test_a_plot_takes_evenly_spread_rows_and_every_ap(
    api: Api, long_series: str, points: int, steps: list[int]
) -> None:
    rows = api.get(f"/jobs/{long_series}/metrics?points={points}").json()["rows"]
    assert [row["step"] for row in rows] == steps
    csv_lines = api.get(f"/jobs/{long_series}/metrics?points={points}&format=csv").text.splitlines()
    assert [int(line.split(",")[0]) for line in csv_lines[1:]] == steps


@pytest.mark.parametrize("query", ["points=5", "format=csv", "points=5&format=csv"])
def test_a_series_is_read_once_however_it_is_asked_for(
    api: Api, long_series: str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """Its rows, and which of them a plot shows: neither again for the header, nor for every page."""
    monkeypatch.setattr("app.jobs.series.ROWS_PER_PAGE", 2)
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement.lower())

    event.listen(api.state.database, "before_cursor_execute", note)
    assert api.get(f"/jobs/{long_series}/metrics?{query}").status_code == 200
    event.remove(api.state.database, "before_cursor_execute", note)
    assert sum("group by" in statement for statement in asked) == ("points" in query)
    num_pages = 4 if "points" in query else 13
    assert sum("job_metrics.epoch" in statement for statement in asked) == num_pages


def test_a_series_without_rows_is_empty(api: Api) -> None:
    job_id = api.job()
    for query in ("", "?points=10"):
        assert api.get(f"/jobs/{job_id}/metrics{query}").json() == {"job_id": job_id, "rows": []}
    assert api.get(f"/jobs/{job_id}/metrics?format=csv").text == "step,epoch\r\n"
    assert_problem(api.get(f"/jobs/{job_id}/metrics?points=1"), 422, "invalid_input")


def test_the_series_as_csv_runs_nothing(api: Api) -> None:
    claim = api.claimed()
    with api.session() as session:
        values = {"loss": -1.5, "=cmd()": "@SUM(1)", "per_class": {"cat": 0.5}, "missing": None}
        protocol.report(session, claim.job_id, claim.fence, series=[(1, 1, values), (2, 1, {"loss": 1.0})])
    answer = api.get(f"/jobs/{claim.job_id}/metrics?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, first, second = csv.reader(io.StringIO(answer.text))
    assert header == ["step", "epoch", "'=cmd()", "loss", "missing"]
    assert first == ["1", "1", "'@SUM(1)", "-1.5", ""]
    assert second == ["2", "1", "", "1.0", ""]
    assert_problem(api.get(f"/jobs/{claim.job_id}/metrics?format=xml"), 422, "invalid_input")


def test_the_log_is_text(api: Api) -> None:
    claim = api.claimed()
    with api.session() as session:
        lines = [f"line {number}" for number in range(1, 1203)]
        protocol.report(session, claim.job_id, claim.fence, log_lines=lines)
    answer = api.get(f"/jobs/{claim.job_id}/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert [line.partition(" ")[2] for line in answer.text.splitlines()] == lines


@pytest.mark.parametrize("action", ["", "/metrics", "/log", "/events"])
def test_an_unknown_job_is_not_found(api: Api, action: str) -> None:
    assert_problem(api.get(f"/jobs/nothing{action}"), 404, "not_found")
    assert_problem(api.get(f"/jobs/{'x' * 65}{action}"), 422, "invalid_input")


@pytest.mark.parametrize("action", ["cancel", "finish", "resume"])
def test_nothing_can_be_done_with_an_unknown_job(api: Api, action: str) -> None:
    assert_problem(api.post(f"/jobs/nothing/{action}"), 404, "not_found")
