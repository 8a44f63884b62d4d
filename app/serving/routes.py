"""How models are served, over HTTP."""

from __future__ import annotations

from app.api.dependencies import StateDep, answers, create_router, needs
from app.errors import EngineUnavailableError
from app.keys.service import Scope
from app.serving.schemas import ServingNowRead, serving_now

router = create_router("operations")


@router.get(
    "/serving",
    dependencies=[needs(Scope.READ)],
    response_model=ServingNowRead,
    responses=answers(EngineUnavailableError),
)
async def show_serving(state: StateDep) -> object:
    """Show how each model in the engine's memory is served at this moment, and who decided it."""
    return serving_now(await state.engine.status())
