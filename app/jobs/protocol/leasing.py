"""Which job has which accelerator: rows that count only while their job is owned with the very same fence.

So nothing has to be cleaned up for the rule to hold; what a lost owner leaves behind counts no more from the
moment in which a sweep takes the job from it. A device is known by the name that its driver gave it, which
is the same in every process and container and on no other host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.database.tables import DeviceLease, Job
from app.database.turns import Turn, take_turn
from app.jobs.protocol.facts import Device
from app.jobs.states import OWNED


@dataclass(frozen=True, slots=True)
class Leased:
    """An accelerator that a running job has, and the host on which it was given to it."""

    uuid: str
    job_id: str
    host: str


def leased_devices(session: Session, uuids: Iterable[str] | None = None) -> list[Leased]:
    """Return who has which accelerators: all of them, or those of `uuids` only. Writes nothing."""
    query = (
        select(DeviceLease.device, DeviceLease.job_id, DeviceLease.host)
        .join(Job, Job.id == DeviceLease.job_id)
        .where(Job.fence == DeviceLease.fence, Job.status.in_(OWNED))
        .order_by(DeviceLease.device)
    )
    if uuids is not None:
        query = query.where(DeviceLease.device.in_(list(uuids)))
    return [Leased(*row) for row in session.execute(query)]


def may_lease(session: Session, devices: Sequence[Device]) -> bool:
    """Return whether no job has any of these devices; until the transaction ends nobody else can take one."""
    uuids = _uuids(devices)
    if not uuids:
        return True
    take_turn(session, Turn.DEVICES)
    return not leased_devices(session, uuids)


def lease(session: Session, job_id: str, fence: int, devices: Sequence[Device], *, host: str) -> None:
    """Give devices that nobody has to an attempt, in the transaction that claims its job."""
    uuids = _uuids(devices)
    if not uuids:
        return
    session.execute(delete(DeviceLease).where(DeviceLease.device.in_(uuids)))  # rows that no longer count
    session.add_all(DeviceLease(device=uuid, host=host, job_id=job_id, fence=fence) for uuid in uuids)
    session.flush()


def end_leases(session: Session, job_id: str) -> None:
    """Remove what a job has; the caller commits."""
    session.execute(
        delete(DeviceLease).where(DeviceLease.job_id == job_id),
        execution_options={"synchronize_session": False},
    )


def _uuids(devices: Sequence[Device]) -> list[str]:
    return [device.uuid for device in devices if device.uuid is not None]
