"""Ends a worker that was told to stop and has no job, even while Celery waits for a silent broker."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from app.logs import get_logger
from worker.context import WorkerContext
from worker.lease import DATABASE_AWAY
from worker.registration import deregister_worker

LOOK_S = 0.2
IDLE_S = 3.0
"""An idle worker may take so long to stop in good order; a read from a silent broker takes half a minute."""

log = get_logger(__name__)


class PromptStop(threading.Thread):
    """Waits for the order to stop, then for the last job, and at last no longer."""

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(name="prompt-stop", daemon=True)
        self._context = context
        self._over = threading.Event()

    def run(self) -> None:
        context, idle_s = self._context, 0.0
        context.draining.wait()
        while idle_s < IDLE_S:
            if self._over.wait(LOOK_S):
                return
            idle_s = idle_s + LOOK_S if context.slots.all_free else 0.0
        log.warning("worker_stopped_without_the_broker", name=context.name)
        with suppress(*DATABASE_AWAY), context.sessions() as session:
            deregister_worker(session, context)
        os._exit(0)

    def end(self) -> None:
        """The worker stops by itself."""
        self._over.set()
