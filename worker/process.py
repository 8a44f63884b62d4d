"""`python -m worker.process JOB FENCE`: the process of one attempt at one job, whatever its kind."""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys

import structlog

from app.database.session import create_database_engine, create_sessions
from app.jobs.protocol import Failure, LostLeaseError
from app.logs import configure_logging, get_logger
from app.parent_death import die_with_parent
from app.settings import Settings, get_settings
from app.storage import open_storage
from detection.errors import DetectionError, NoSpaceError
from detection.training.state import StopRequest
from worker.attempt import Attempt, find_facts
from worker.control import Control, StoppedError
from worker.exit_codes import ExitCode, RanksEndedError
from worker.failures import NO_SPACE_DELAY_S, crash_line, failure_of, is_disk_full
from worker.jobs import load_job
from worker.lease import DatabaseAwayError, Lease
from worker.limits import limit_resources
from worker.report import JobReport
from worker.scratch import scratch_folder
from worker.standard_input import line_from_parent

log = get_logger(__name__)


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    die_with_parent(signal.SIGKILL, parent_pid=options.keeper)
    settings = get_settings()
    configure_logging(settings)
    structlog.contextvars.bind_contextvars(job_id=options.job_id, fence=options.fence)
    control = Control(line_from_parent())
    control.listen()
    lease = Lease(
        create_sessions(create_database_engine(settings)),
        options.job_id,
        options.fence,
        patience_s=settings.lease_s,
    )
    try:
        return _work(settings, lease, control, options.device)
    except (LostLeaseError, DatabaseAwayError) as error:
        log.warning("stopped_without_a_lease", error=repr(error))
        return ExitCode.LOST_LEASE
    except StoppedError as stopped:
        return ExitCode.CANCELLED if stopped.request is StopRequest.CANCEL else ExitCode.DRAINED
    except RanksEndedError as ended:
        return ended.code


def _work(settings: Settings, lease: Lease, control: Control, device: str) -> ExitCode:
    job = lease.write(lambda session: find_facts(session, lease.job_id, lease.fence))
    limit_resources(job.kind, settings, device=device)
    scratch = scratch_folder(settings, job.id, job.fence)
    scratch.mkdir(parents=True)
    report = JobReport(lease, control, timing=job.timing)
    try:
        _run(
            Attempt(
                job=job,
                device=device,
                settings=settings,
                storage=open_storage(settings),
                lease=lease,
                control=control,
                report=report,
                scratch=scratch,
            )
        )
    finally:
        report.close()
    return ExitCode.DONE


def _run(attempt: Attempt) -> None:
    """Do the job; whatever it raises on purpose ends it in an orderly way, the rest is for the log."""
    try:
        load_job(attempt.job.kind)(attempt)
    except NoSpaceError as error:
        attempt.try_again(failure_of(error), delay_s=NO_SPACE_DELAY_S)
    except DetectionError as error:
        failure = failure_of(error)
        attempt.report.line(failure.message)
        if failure.retryable:
            attempt.try_again(failure, delay_s=0.0)
        else:
            attempt.fail(failure)
    except OSError as error:
        if not is_disk_full(error):
            _note_crash(attempt, error)
            raise
        failure = Failure("no_space", "the disk is full", retryable=True)
        attempt.try_again(failure, delay_s=NO_SPACE_DELAY_S)
    except (LostLeaseError, DatabaseAwayError, StoppedError, RanksEndedError):
        raise
    except Exception as error:
        _note_crash(attempt, error)
        raise


def _note_crash(attempt: Attempt, error: Exception) -> None:
    """Leave word in the job's own log; the traceback itself goes to the worker's."""
    attempt.report.line(crash_line(error))
    attempt.report.flush()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.process", description="Run one job.")
    parser.add_argument("job_id")
    parser.add_argument("fence", type=int)
    parser.add_argument("--device", default="auto", help="what the job has to compute on")
    parser.add_argument("--keeper", type=int, help="process id of whoever watches this one")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
