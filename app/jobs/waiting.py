"""Why queued jobs wait, and their places in the queue: found out when it is read, for many jobs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Job, utc_now
from app.jobs import protocol
from app.jobs.line import Answer, Begins, Line, Waits
from app.jobs.offers import Offer, list_offers, read_offers
from app.jobs.protocol import InLine
from app.jobs.schemas import WaitingRead
from app.jobs.states import OWNED, JobStatus, Queue
from detection.device_choice import AUTO, CPU, read_choice
from detection.errors import DeviceError

RING_PATIENCE = timedelta(seconds=5)
"""A job that nobody was told of for so long was queued while the broker was silent."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued job stands, and what for."""

    position: int
    waiting_for: WaitingRead


def places_of(session: Session, jobs: Sequence[Job], reasons: Mapping[str, str]) -> dict[str, Place]:
    """Return the places of those jobs that are queued, by their ids; as many queries for one as for many.

    Args:
        reasons: why each job was queued the last time.
    """
    wanted = {job.id: job for job in jobs if job.status == JobStatus.QUEUED}
    if not wanted:
        return {}
    queues = {Queue(job.queue) for job in wanted.values()}
    places: dict[str, Place] = {}
    for queue, office in _open_offices(session, queues).items():
        for position, job in enumerate(office.line, start=1):
            answers = office.join(job)
            if job.job_id in wanted:
                reason = reasons.get(job.job_id, "")
                places[job.job_id] = Place(position, office.explain(job, answers, queue, reason))
    return places


class Office:
    """One queue: the jobs in it, the workers that serve it, and the lines before their devices."""

    def __init__(
        self,
        line: Sequence[InLine],
        offers: Sequence[Offer],
        leased: Mapping[str, str],
        on_cpu: Mapping[str, Sequence[str]],
    ) -> None:
        """Open the lines.

        Args:
            leased: the job that has an accelerator, by the driver's name of it.
            on_cpu: the jobs that compute on a worker's CPU, by the worker.
        """
        self.line, self._offers = line, offers
        self._alive = [offer for offer in offers if offer.is_alive]
        self._lines = [
            Line(
                offer.accelerators,
                {number: leased[uuid] for number, uuid in offer.accelerators.items() if uuid in leased},
                cpu=on_cpu.get(offer.worker, ()),
                cpu_jobs=offer.cpu_jobs,
            )
            for offer in self._alive
        ]

    def join(self, job: InLine) -> list[Answer]:
        """Return what each live worker has for the next job; one that may not begin yet has no place."""
        try:
            choice = read_choice(job.device, ())
        except DeviceError:
            return []
        return [line.join(job.job_id, choice) for line in self._lines] if job.is_due else []

    def explain(self, job: InLine, answers: Sequence[Answer], queue: Queue, reason: str) -> WaitingRead:
        """Return what a job waits for; the first of these that is true.

        Args:
            reason: why it was queued the last time.
        """
        if job.not_before is not None and not job.is_due:
            return _later(datetime.fromtimestamp(job.not_before, UTC), reason)
        if not self._alive:
            return _no_worker(queue, max((offer.seen_at for offer in self._offers), default=None))
        if any(isinstance(answer, Begins) for answer in answers):
            return _begins(job)
        waits = [(a, offer) for a, offer in zip(answers, self._alive, strict=False) if isinstance(a, Waits)]
        if not waits:
            return _missing(job, queue, self._alive)
        return _in_use(*min(waits, key=lambda each: not each[0].running))


def _open_offices(session: Session, queues: set[Queue]) -> dict[Queue, Office]:
    lines = protocol.whole_queues(session, queues)
    offers = read_offers(session, queues)
    leased = {each.uuid: each.job_id for each in protocol.leased_devices(session)}
    on_cpu: dict[str, list[str]] = {}
    running = select(Job.lease_owner, Job.id).where(Job.status.in_(OWNED), Job.device == CPU).order_by(Job.id)
    for owner, job_id in session.execute(running):
        on_cpu.setdefault(owner or "", []).append(job_id)
    return {
        queue: Office(lines[queue], [each for each in offers if each.queue is queue], leased, on_cpu)
        for queue in queues
    }


def _later(until: datetime, reason: str) -> WaitingRead:
    why = f", because {reason}" if reason else ""
    message = f"it is tried again at {until:%Y-%m-%d %H:%M:%S} UTC{why}"
    return WaitingRead(code="retry_later", message=message, until=until)


def _no_worker(queue: Queue, since: datetime | None) -> WaitingRead:
    if since is None:
        return WaitingRead(code="no_worker", message=f"no worker of the queue {queue} is running")
    message = f"no worker of the queue {queue} is alive; the last was seen at {since:%Y-%m-%d %H:%M:%S} UTC"
    return WaitingRead(code="no_worker", message=message, since=since)


def _begins(job: InLine) -> WaitingRead:
    if job.rung_at is None and job.queued_at is not None and job.queued_at < utc_now() - RING_PATIENCE:
        message = "the broker does not answer; a worker takes the job without it, somewhat later"
        return WaitingRead(code="broker_silent", message=message, since=job.queued_at)
    return WaitingRead(code="starting", message="it is its turn; a worker takes it in a moment")


def _missing(job: InLine, queue: Queue, offers: Sequence[Offer]) -> WaitingRead:
    message = (
        f"no live worker of the queue {queue} has the device {job.device!r}; there are: {list_offers(offers)}"
    )
    return WaitingRead(code="device_missing", message=message, device=job.device)


def _in_use(wait: Waits, offer: Offer) -> WaitingRead:
    place = {CPU: "the CPU", AUTO: "any accelerator"}.get(wait.device, f"device {wait.device}")
    if wait.running:
        code, message = "device_busy", f"{place} of {offer.host} is in use by job {wait.job_id}"
    else:
        code, message = "turn", f"job {wait.job_id} comes before it in the line for {place} of {offer.host}"
    return WaitingRead(code=code, message=message, job_id=wait.job_id, host=offer.host, device=wait.device)
