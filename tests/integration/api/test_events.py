"""Events over HTTP: replayed without hole or double, as they happen, until the job has ended."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from sqlalchemy import func, select, text

from app.api.events import POLL_S
from app.database.tables import Job, JobEvent
from app.jobs import protocol
from app.jobs.protocol import Claim, note_change
from tests.integration.api.conftest import Api, MakeApi, assert_problem
from tests.services import wait_until


def parse(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream as a browser would see them."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            data = json.loads(fields["data"])
            events.append({"id": int(fields["id"]), "event": fields["event"], "data": data})
    return events


def tell(api: Api, claim: Claim, step: int) -> None:
    with api.session() as session:
        values = {"loss": 1.0 / step}
        protocol.report(
            session, claim.job_id, claim.fence, series=[(step, 1, values)], log_lines=[f"step {step}"]
        )


def end(api: Api, claim: Claim) -> None:
    with api.session() as session:
        protocol.succeed(session, claim.job_id, claim.fence, {})


def stream(api: Api, path: str, **headers: str) -> list[dict[str, Any]]:
    """Read a stream until the server ends it."""
    answer = api.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    return parse(answer.text)


@pytest.fixture
def claim(api: Api) -> Claim:
    return api.claimed()


def test_an_ended_job_is_replayed_and_the_stream_ends(api: Api, claim: Claim) -> None:
    for step in (1, 2, 3):
        tell(api, claim, step)
    end(api, claim)
    events = stream(api, f"/jobs/{claim.job_id}/events")
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))
    assert [event["data"]["step"] for event in events if event["event"] == "metric"] == [1, 2, 3]
    assert [event["data"]["line"] for event in events if event["event"] == "log"] == [
        "step 1",
        "step 2",
        "step 3",
    ]
    statuses = [event["data"]["status"] for event in events if event["event"] == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert {event["data"]["subject"] for event in events} == {f"jobs/{claim.job_id}"}


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_stream_goes_on_after_the_last_event_seen(api: Api, claim: Claim, how: str) -> None:
    tell(api, claim, 1)
    tell(api, claim, 2)
    end(api, claim)
    here = f"/jobs/{claim.job_id}/events"
    everything = stream(api, here)
    seen = everything[3]["id"]
    if how == "header":
        rest = stream(api, here, **{"Last-Event-ID": str(seen)})
    else:
        rest = stream(api, f"{here}?last_event_id={seen}")
    assert rest == everything[4:]


def test_the_header_of_a_browser_that_comes_back_wins(api: Api, claim: Claim) -> None:
    tell(api, claim, 1)
    end(api, claim)
    here = f"/jobs/{claim.job_id}/events"
    everything = stream(api, here)
    rest = stream(api, f"{here}?last_event_id=0", **{"Last-Event-ID": str(everything[-2]["id"])})
    assert rest == everything[-1:]


def test_who_has_seen_the_end_is_sent_away(api: Api, claim: Claim) -> None:
    end(api, claim)
    here = f"/jobs/{claim.job_id}/events"
    last = stream(api, here)[-1]["id"]
    assert api.get(here, headers={"Last-Event-ID": str(last)}).status_code == 204


def test_other_jobs_are_not_mixed_in(api: Api, claim: Claim) -> None:
    other = api.claimed()
    for step in (1, 2):
        tell(api, claim, step)
        tell(api, other, step + 10)
    end(api, other)
    end(api, claim)
    metrics = [event for event in stream(api, f"/jobs/{claim.job_id}/events") if event["event"] == "metric"]
    assert [event["data"]["step"] for event in metrics] == [1, 2]


def test_a_long_past_is_replayed_in_pages(api: Api, claim: Claim) -> None:
    lines = [f"line {number}" for number in range(1, 1301)]
    with api.session() as session:
        protocol.report(session, claim.job_id, claim.fence, log_lines=lines)
    end(api, claim)
    logged = [event for event in stream(api, f"/jobs/{claim.job_id}/events") if event["event"] == "log"]
    assert [event["data"]["line"] for event in logged] == lines


def test_of_many_steps_at_once_the_newest_and_the_measured_are_told(api: Api, claim: Claim) -> None:
    """The series keeps every step; a stream is told as often as the job reports."""
    series = [(n, 1, {"loss": 1.0 / n, **({"ap": 0.5} if n in (300, 600) else {})}) for n in range(1, 1301)]
    with api.session() as session:
        protocol.report(session, claim.job_id, claim.fence, series=series)
    end(api, claim)
    metrics = [event for event in stream(api, f"/jobs/{claim.job_id}/events") if event["event"] == "metric"]
    assert [event["data"]["step"] for event in metrics] == [300, 600, 1300]
    assert metrics[0]["data"].items() >= {"epoch": 1, "loss": 1 / 300, "ap": 0.5}.items()
    assert len(api.get(f"/jobs/{claim.job_id}/metrics").json()["rows"]) == 1300


def test_events_come_as_they_happen(api: Api, claim: Claim) -> None:
    """The job goes on while it is watched: nothing is lost between the past and the present."""

    def work() -> None:
        for step in range(1, 31):
            tell(api, claim, step)
            time.sleep(0.02)
        end(api, claim)

    worker = threading.Thread(target=work)
    worker.start()
    readers = [Reader(api, f"/jobs/{claim.job_id}/events") for _ in range(3)]
    worker.join()
    for reader in readers:
        metrics = [event for event in reader.result() if event["event"] == "metric"]
        assert [event["data"]["step"] for event in metrics] == list(range(1, 31))


class Reader(threading.Thread):
    """Reads a stream in a thread of its own; once this exists, the stream is open."""

    def __init__(self, api: Api, path: str, **headers: str) -> None:
        super().__init__()
        self._api, self._path, self._headers = api, path, headers
        self._events: list[dict[str, Any]] = []
        before = api.state.events.num_listeners
        self.start()
        wait_until(lambda: api.state.events.num_listeners > before or not self.is_alive(), timeout_s=20)

    def run(self) -> None:
        self._events = parse(self._api.get(self._path, headers=self._headers).text)

    def result(self) -> list[dict[str, Any]]:
        self.join(timeout=30)
        assert not self.is_alive()
        return self._events


def wait_for_news(api: Api) -> None:
    """Wait until everything that is committed was handed to the streams."""
    with api.session() as session:
        newest = session.scalar(select(func.max(JobEvent.id))) or 0
    wait_until(lambda: api.state.events.position >= newest, timeout_s=20)


def changes(api: Api, *subjects: str) -> None:
    with api.session() as session:
        for subject in subjects:
            note_change(session, subject, {"status": "ready"})
        session.commit()


def subjects_until_now(api: Api, reader: Reader) -> list[str]:
    """Stop the server, and return what a stream has carried until then."""
    wait_for_news(api)
    api.state.drain()
    return [event["data"]["subject"] for event in reader.result()]


def test_a_resumed_job_does_not_end_the_stream(api: Api) -> None:
    job_id = api.job(dataset_id=api.ready_dataset())
    api.post(f"/jobs/{job_id}/cancel")
    api.post(f"/jobs/{job_id}/resume")
    reader = Reader(api, f"/jobs/{job_id}/events")
    wait_for_news(api)
    api.post(f"/jobs/{job_id}/cancel")
    statuses = [event["data"]["status"] for event in reader.result()]
    assert statuses == ["queued", "cancelled", "queued", "cancelled"]


def test_a_deleted_job_ends_its_stream(api: Api) -> None:
    job_id = api.job()
    reader = Reader(api, f"/jobs/{job_id}/events")
    wait_for_news(api)
    with api.session() as session:  # at once, so that nobody sees the job in between
        session.delete(session.get_one(Job, job_id))
        note_change(session, f"jobs/{job_id}", {"status": "deleted"})
        session.commit()
    assert [event["data"]["status"] for event in reader.result()] == ["queued", "deleted"]


def test_a_server_that_stops_ends_every_stream(api: Api) -> None:
    reader = Reader(api, f"/jobs/{api.job()}/events")
    everything = Reader(api, "/events")
    wait_for_news(api)
    api.state.drain()
    assert [event["data"]["status"] for event in reader.result()] == ["queued"]
    everything.result()
    assert_problem(api.get("/events"), 503, "draining")


def test_nobody_opens_streams_without_end(api: Api, claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.state.seats, "_per_caller", 2)
    readers = [Reader(api, f"/jobs/{claim.job_id}/events") for _ in range(2)]
    wait_for_news(api)
    answer = api.get("/events")
    assert_problem(answer, 429, "too_many_streams")
    assert int(answer.headers["retry-after"]) > 0
    end(api, claim)
    for reader in readers:
        reader.result()
    assert stream(api, f"/jobs/{claim.job_id}/events")


def test_all_changes_come_on_one_stream(api: Api, claim: Claim) -> None:
    tell(api, claim, 1)
    changes(api, "datasets/d")
    everything = Reader(api, "/events", **{"Last-Event-ID": "0"})
    changes(api, "models/m")
    here = f"jobs/{claim.job_id}"
    assert subjects_until_now(api, everything) == [here, here, "datasets/d", "models/m"]


def test_without_a_number_only_news_come(api: Api) -> None:
    changes(api, "datasets/old")
    wait_for_news(api)
    everything = Reader(api, "/events")
    changes(api, "datasets/new")
    assert subjects_until_now(api, everything) == ["datasets/new"]


def test_an_event_that_is_committed_late_is_not_lost(api: Api) -> None:
    """Its number is below one that is visible already. SQLite has one writer, and no such case."""
    everything = Reader(api, "/events")
    with api.session() as late:
        note_change(late, "datasets/late", {})
        late.flush()
        if api.state.database.dialect.name == "postgresql":
            changes(api, "datasets/punctual")
            time.sleep(3 * POLL_S)  # the poller has seen the second, and waits for the first
        late.commit()
    if api.state.database.dialect.name == "sqlite":
        changes(api, "datasets/punctual")
    assert subjects_until_now(api, everything) == ["datasets/late", "datasets/punctual"]


def test_a_number_that_never_comes_does_not_stop_the_stream(api: Api) -> None:
    everything = Reader(api, "/events")
    changes(api, "datasets/a")
    with api.session() as session:
        newest = session.scalar(select(func.max(JobEvent.id))) or 0
        for number in (newest + 5, newest + 9):
            session.add(JobEvent(id=number, subject=f"datasets/{number}", kind="status", data={}))
        session.commit()
    assert subjects_until_now(api, everything) == [
        "datasets/a",
        f"datasets/{newest + 5}",
        f"datasets/{newest + 9}",
    ]


@pytest.mark.parametrize("value", ["-1", "x", str(2**63)])
def test_a_strange_number_is_refused(api: Api, value: str) -> None:
    assert_problem(api.get("/events", headers={"Last-Event-ID": value}), 422, "invalid_input")
    assert_problem(api.get("/events", params={"last_event_id": value}), 422, "invalid_input")


def test_a_database_that_was_away_is_asked_again(api: Api) -> None:
    everything = Reader(api, "/events")
    with api.session() as session:
        session.execute(text("alter table job_events rename to elsewhere"))
        session.commit()
    time.sleep(3 * POLL_S)  # the poller asks in vain
    with api.session() as session:
        session.execute(text("alter table elsewhere rename to job_events"))
        session.commit()
    changes(api, "datasets/d")
    assert subjects_until_now(api, everything) == ["datasets/d"]


def test_to_follow_a_log_is_to_go_on_to_the_events(make_api: MakeApi) -> None:
    for prefix in ("", "/harrier"):
        api = make_api(root_path=prefix)
        job_id = api.job()
        asked = api.get(f"/jobs/{job_id}/log?follow=true", follow_redirects=False)
        assert (asked.status_code, asked.headers["location"]) == (307, f"{prefix}/jobs/{job_id}/events")
        assert api.get(f"/jobs/{job_id}/log?follow=false").headers["content-type"].startswith("text/plain")
        assert_problem(api.get("/jobs/nothing/log?follow=true"), 404, "not_found")
