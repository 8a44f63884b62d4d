"""Room over HTTP: what fills the disk, and what may still come."""

from __future__ import annotations

from app.api.dependencies import ReadingDep, SettingsDep, answers, create_router, needs
from app.keys.service import Scope
from app.usage import service
from app.usage.schemas import UsageRead

router = create_router("operations")


@router.get("/usage", dependencies=[needs(Scope.READ)], response_model=UsageRead, responses=answers())
def show_usage(session: ReadingDep, settings: SettingsDep) -> object:
    """Show what datasets, models and the checkpoints of jobs take, what they may take, and what is kept."""
    return service.read_usage(session, settings)
