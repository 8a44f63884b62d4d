"""What the workers offer: which of them are alive, on which hosts, with which devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Worker, utc_now
from app.jobs.states import Queue
from detection.device_choice import AUTO, CPU, DeviceChoice


@dataclass(frozen=True, slots=True)
class Offer:
    """What one worker has for the jobs of its queue."""

    worker: str
    queue: Queue
    host: str
    accelerators: dict[str, str]
    """The driver's name of each by the number that jobs ask for."""
    names: dict[str, str]
    """What each is called, by the same number."""
    cpu_jobs: int
    seen_at: datetime
    lease_s: float

    @classmethod
    def of(cls, row: Worker) -> Offer:
        numbered = {str(device["index"]): device for device in row.devices if "uuid" in device}
        return cls(
            worker=row.name,
            queue=Queue(row.queue),
            host=row.hostname,
            accelerators={number: device["uuid"] for number, device in numbered.items()},
            names={number: device["name"] for number, device in numbered.items()},
            cpu_jobs=row.cpu_jobs,
            seen_at=row.seen_at,
            lease_s=row.lease_s,
        )

    @property
    def is_alive(self) -> bool:
        """Whether the worker said within its lease time that it lives."""
        return utc_now() - self.seen_at < timedelta(seconds=self.lease_s)

    def has(self, choice: DeviceChoice) -> bool:
        """Return whether the worker could do a job with this choice, once the devices are free."""
        return all(str(number) in self.accelerators for number in choice.numbers)

    @property
    def devices(self) -> tuple[str, ...]:
        """What a job may ask for here."""
        return (AUTO, *self.accelerators, CPU)


def read_offers(session: Session, queues: Iterable[Queue]) -> list[Offer]:
    """Return what all workers of these queues offer that are not forgotten yet; writes nothing."""
    rows = session.scalars(select(Worker).where(Worker.queue.in_(list(queues))).order_by(Worker.name))
    return [Offer.of(row) for row in rows]


def list_offers(offers: Sequence[Offer]) -> str:
    """Return what there is, for people: `auto, 0 (NVIDIA L4), cpu on rack-1; auto, cpu on rack-2`."""
    lists: dict[str, list[str]] = {}
    for offer in offers:
        named = ", ".join(f"{number} ({name})" for number, name in offer.names.items())
        hosts = lists.setdefault(f"{AUTO}, {named}, {CPU}" if named else f"{AUTO}, {CPU}", [])
        if offer.host not in hosts:
            hosts.append(offer.host)
    return "; ".join(f"{devices} on {' and '.join(hosts)}" for devices, hosts in lists.items())
