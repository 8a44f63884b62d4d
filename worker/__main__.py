"""`python -m worker --queue cpu|gpu`: one worker, until it is told to stop."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from app.jobs.states import Queue
from app.logs import configure_logging, get_logger
from app.settings import get_settings
from app.settings_faults import faults_end_the_process
from detection.errors import DeviceError
from worker.celery_app import configure
from worker.context import create_context, set_context
from worker.janitor import janitor_rounds
from worker.lease import DATABASE_AWAY
from worker.prompt_stop import PromptStop
from worker.registration import deregister_worker
from worker.sweep import sweep_rounds

STOP_S = 5.0

log = get_logger(__name__)


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    with faults_end_the_process():
        settings = get_settings()
    configure_logging(settings)
    try:
        context = create_context(settings, Queue(options.queue))
    except DeviceError as error:
        log.error("worker_cannot_start", reason=f"HARRIER_DEVICE: {error}")
        return os.EX_CONFIG
    set_context(context)
    celery = configure(settings)
    threads = (sweep_rounds(context), janitor_rounds(context))
    prompt_stop = PromptStop(context)
    for thread in (*threads, prompt_stop):
        thread.start()
    devices = [device.number for device in context.slots.accelerators]
    log.info("worker_started", name=context.name, slots=context.slots.size, accelerators=devices)
    worker = celery.Worker(
        hostname=context.name,
        pool="threads",
        concurrency=context.slots.size,
        queues=[context.queue.value],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    try:
        worker.start()
    finally:
        prompt_stop.end()  # from here on the worker ends by itself, with its own exit status
        context.draining.set()
        for thread in threads:
            thread.stop(timeout_s=STOP_S)
        with suppress(*DATABASE_AWAY), context.sessions() as session:
            deregister_worker(session, context)
    log.info("worker_stopped", name=context.name)
    return int(worker.exitcode or 0)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run Harrier's background jobs.")
    parser.add_argument("--queue", choices=[queue.value for queue in Queue], required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
