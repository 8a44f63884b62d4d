"""Celery at the edge of the worker: it hears the bell and hands the job to a keeper, nothing else."""

from __future__ import annotations

import logging

from celery import Celery
from celery.signals import setup_logging, worker_shutting_down

from app.settings import Settings
from app.task_queue import VISIBILITY_TIMEOUT_S
from worker.context import get_context

STOP_MARGIN_S = 5.0

SAID_BY_THE_KEEPER = ("celery.worker.strategy", "celery.app.trace")
"""Loggers that announce each task; the keeper says what became of the job."""

celery_app = Celery("harrier", include=["worker.tasks"])


def configure(settings: Settings) -> Celery:
    """Return the application, told where the broker is and how to behave when it is not there."""
    celery_app.conf.update(
        broker_url=settings.broker_address,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "health_check_interval": 25,
        },
        visibility_timeout=VISIBILITY_TIMEOUT_S,
        result_backend_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # a broker that blinks must never end a training, whatever the default becomes
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=settings.stop_grace_s + STOP_MARGIN_S,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
    )
    return celery_app


@setup_logging.connect
def _keep_our_logging(**_: object) -> None:
    """Celery configures no logging of its own when somebody listens to this signal."""
    for name in SAID_BY_THE_KEEPER:
        logging.getLogger(name).setLevel(logging.WARNING)


@worker_shutting_down.connect
def _drain(**_: object) -> None:
    """A deploy: every job saves its state and goes back to the queue."""
    get_context().draining.set()
