"""A lease's writes: patient with an absent database, and never done twice."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.session import Sessions
from app.jobs import protocol
from app.jobs.protocol import Claim, LostLeaseError
from app.jobs.states import JobStatus
from worker.lease import DatabaseAwayError, Lease


def away() -> OperationalError:
    return OperationalError("select 1", {}, Exception("the server closed the connection"))


@pytest.fixture
def lease(sessions: Sessions, claim: Claim) -> Lease:
    return Lease(sessions, claim.job_id, claim.fence, patience_s=1.0)


def test_a_write_is_tried_again_while_the_database_is_away(lease: Lease) -> None:
    tries = []

    def transaction(session: Session) -> int:
        tries.append(session)
        if len(tries) < 3:
            raise away()
        return 7

    assert lease.write(transaction) == 7
    assert len({id(session) for session in tries}) == 3


def test_a_write_gives_up_when_the_lease_may_have_run_out(lease: Lease) -> None:
    def transaction(session: Session) -> None:
        raise away()

    with pytest.raises(DatabaseAwayError):
        lease.write(transaction)


def test_a_lost_lease_is_no_reason_to_wait(sessions: Sessions, claim: Claim) -> None:
    old = Lease(sessions, claim.job_id, claim.fence - 1, patience_s=60.0)
    with pytest.raises(LostLeaseError):
        old.write(lambda session: protocol.report(session, old.job_id, old.fence, stage="training"))


def test_an_end_whose_answer_was_lost_is_not_written_again(lease: Lease) -> None:
    tries = []

    def transaction(session: Session) -> None:
        tries.append(session)
        protocol.succeed(session, lease.job_id, lease.fence, {"try": len(tries)})
        raise away()  # the commit has arrived, its answer has not

    lease.end(transaction)
    assert len(tries) == 1
    assert lease.ended_as() is JobStatus.SUCCEEDED


def test_an_end_that_never_arrived_is_written_again(lease: Lease) -> None:
    tries = []

    def transaction(session: Session) -> None:
        tries.append(session)
        if len(tries) == 1:
            raise away()
        protocol.succeed(session, lease.job_id, lease.fence, {})

    assert lease.ended_as() is None
    lease.end(transaction)
    assert len(tries) == 2
    assert lease.ended_as() is JobStatus.SUCCEEDED
