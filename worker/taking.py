"""Which job a worker takes next: the oldest whose devices are free. What nobody can ever do is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.database.tables import utc_now
from app.jobs import protocol
from app.jobs.line import Begins
from app.jobs.offers import Offer, list_offers, read_offers
from app.jobs.protocol import Failure, InLine
from app.logs import get_logger
from detection.device_choice import DeviceChoice, read_choice
from detection.errors import DeviceError
from worker.context import WorkerContext
from worker.keeper import keep
from worker.lease import DATABASE_AWAY

MISSING = "device_missing"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """A job whose turn it is, and the devices that it gets."""

    job_id: str
    devices: tuple[str, ...]


def take_jobs(context: WorkerContext) -> None:
    """Do jobs here, one after the other, until there is none whose devices are free.

    A bell says no more than that there may be something to do. That the next job is looked for when one has
    ended is how a job begins whose bell came when its device was busy.
    """
    missed: Turn | None = None
    try:
        refuse_impossible(context)
        while not context.draining.is_set():
            turn = next_job(context)
            if turn is None or turn == missed:
                return  # whoever was faster has it; if nobody has, a sweep finds it
            missed = None if keep(turn.job_id, context, turn.devices) else turn
    except DATABASE_AWAY as error:
        log.warning("database_away", error=str(error.orig))


def next_job(context: WorkerContext) -> Turn | None:
    """Return the oldest due job whose turn it is here; None when every one waits for something."""
    with context.reading() as session:
        waiting = protocol.waiting_line(session, context.queue)
        leased = {each.uuid: each.job_id for each in protocol.leased_devices(session)} if waiting else {}
    line, mine = context.slots.line(leased), own_offer(context)
    for job in waiting:
        choice = _choice(job, mine)
        if isinstance(choice, DeviceError):
            continue
        answer = line.join(job.job_id, choice)
        if isinstance(answer, Begins):
            return Turn(job.job_id, answer.devices)
    return None


def refuse_impossible(context: WorkerContext) -> None:
    """End the queued jobs whose devices no live worker has, with a list of those that there are.

    A job that has run before had its devices once: their worker may come back, so it waits. So does, for a
    lease's time, a job that is older than this worker: after an outage all workers start at the same time.
    """
    mine = own_offer(context)
    with context.reading() as session:
        line = protocol.waiting_line(session, context.queue)
        misfits = [job for job in line if _problem(job, [mine]) and not _has_time(job, context)]
        offers = read_offers(session, [context.queue]) if misfits else []
    others = [offer for offer in offers if offer.worker != mine.worker and offer.is_alive]
    for job in misfits:
        if problem := _problem(job, [mine, *others]):
            _refuse(context, job, problem, [mine, *others])


def own_offer(context: WorkerContext) -> Offer:
    """Return what this worker has, as others read it in its row."""
    accelerators = context.slots.accelerators
    return Offer(
        worker=context.name,
        queue=context.queue,
        host=context.host,
        accelerators={device.number: device.uuid or "" for device in accelerators},
        names={device.number: device.name for device in accelerators},
        cpu_jobs=context.slots.cpu_jobs,
        seen_at=utc_now(),
        lease_s=context.settings.lease_s,
    )


def _refuse(context: WorkerContext, job: InLine, problem: str, offers: Sequence[Offer]) -> None:
    there = [{"host": offer.host, "devices": list(offer.devices)} for offer in offers]
    with context.sessions() as session:
        if protocol.refuse(session, job.job_id, Failure(MISSING, problem, details={"workers": there})):
            log.warning("job_refused", job_id=job.job_id, device=job.device)


def _has_time(job: InLine, context: WorkerContext) -> bool:
    patience = timedelta(seconds=context.settings.lease_s)
    is_older = job.created_at < context.started_at and utc_now() - context.started_at < patience
    return job.attempt > 0 or is_older


def _choice(job: InLine, offer: Offer) -> DeviceChoice | DeviceError:
    try:
        return read_choice(job.device, offer.devices)
    except DeviceError as error:
        return error


def _problem(job: InLine, offers: Sequence[Offer]) -> str:
    """Return why none of these workers can ever do a job; empty when one can."""
    choice = _choice(job, offers[0])
    if isinstance(choice, DeviceError):
        return str(choice)
    if any(offer.has(choice) for offer in offers):
        return ""
    what = "it" if len(choice.numbers) == 1 else "all of these"
    return (
        f"device {job.device!r}: no live worker of the queue {offers[0].queue} has {what}; "
        f"there are: {list_offers(offers)}; choose `auto` or one of these"
    )
