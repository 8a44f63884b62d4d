"""How models are served at this moment, over HTTP."""

from __future__ import annotations

from app.detect.wire import ChosenBy, ServedNow
from app.errors import EngineUnavailableError
from detection.inference.serving import Precision, ServingShape
from tests.integration.api.conftest import Api, assert_problem

BF16 = ServingShape("openvino", Precision.BF16, streams=2, threads=1, batch_size=1)


def test_each_model_in_memory_says_how_it_is_served_and_why(api: Api) -> None:
    api.engine.served = (
        ServedNow("m1", BF16, ChosenBy.COMPARISON, "openvino:bf16 was accepted: 40 of 40 boxes agree"),
        ServedNow("m2", BF16, ChosenBy.PLAN, ""),
    )
    answer = api.get("/serving").json()
    assert (answer["device"], answer["backend"]) == ("cpu", "fake")
    shape = {"backend": "openvino", "precision": "bf16", "streams": 2, "threads": 1, "batch_size": 1}
    reason = "openvino:bf16 was accepted: 40 of 40 boxes agree"
    assert answer["models"] == [
        {"model_id": "m1", **shape, "chosen_by": "comparison", "reason": reason},
        {"model_id": "m2", **shape, "chosen_by": "plan", "reason": None},
    ]


def test_without_an_engine_nobody_knows(api: Api) -> None:
    api.engine.error = EngineUnavailableError("the engine is not running", retry_after_s=5)
    assert_problem(api.get("/serving"), 503, "engine_unavailable")
