"""What Prometheus reads: requests as they are answered, and the state of the queues when asked."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from app.api.noted import Noted
from app.database.session import Sessions
from app.database.tables import Dataset, Job, Model, OutboxRow, Worker

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Measures:
    """One registry per application, so that several may live in one process."""

    def __init__(self, sessions: Sessions) -> None:
        self.registry = CollectorRegistry()
        self._noted: Noted[tuple[str, str, int, float]] = Noted(self._count_request, self.registry)
        self._requests = Counter(
            "harrier_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "harrier_request_seconds", "Time to answer.", ["method", "route"], registry=self.registry
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """A route's series, so many as there are routes and statuses; looking them up would cost the most."""
        self.registry.register(_Rows(sessions))

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request under its route's template: what a client makes up must not make series."""
        self._noted.note((method, route, status, seconds))

    def _count_request(self, request: tuple[str, str, int, float]) -> None:
        method, route, status, seconds = request
        known = method if method in KNOWN_METHODS else "other"
        series = self._known.get((known, route, status))
        if series is None:
            series = self._requests.labels(known, route, str(status)), self._seconds.labels(known, route)
            self._known[known, route, status] = series
        counter, histogram = series
        counter.inc()
        histogram.observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Rows(Collector):
    """Counts of rows, read when they are asked for."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def describe(self) -> Iterator[Metric]:
        return iter(())  # or registering would already ask the database

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("harrier_jobs", "Jobs by state.", labels=["kind", "queue", "status"])
        with self._sessions() as session:
            counted = select(Job.kind, Job.queue, Job.status, func.count()).group_by(
                Job.kind, Job.queue, Job.status
            )
            for kind, queue, status, count in session.execute(counted):
                jobs.add_metric([kind, queue, status], count)
            yield jobs
            for table, name, text in (
                (Dataset, "harrier_datasets", "Datasets."),
                (Model, "harrier_models", "Models."),
                (OutboxRow, "harrier_unanswered_bells", "Jobs that were announced and not claimed yet."),
                (Worker, "harrier_workers", "Workers that have ever been seen and not been forgotten."),
            ):
                rows = session.scalar(select(func.count()).select_from(table)) or 0
                yield GaugeMetricFamily(name, text, value=rows)
