"""Which model answers `/detect` while names move: held by the engine, prepared, replaced in one moment."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from app.database.tables import Model
from app.errors import EngineUnavailableError
from tests.integration.api.conftest import Api, MakeApi
from tests.services import wait_until

PICTURE = {"content": b"\xff\xd8\xff\xe0", "headers": {"Content-Type": "image/jpeg"}}


def model_of(api: Api, **options: Any) -> str:
    answer = api.client.post("/detect", **PICTURE, **options)
    assert answer.status_code == 200, answer.text
    model_id: str = answer.json()["model"]
    return model_id


def move(api: Api, alias: str, model_id: str) -> None:
    """Move an alias as another process does: nobody prepares anything."""
    with api.session() as session:
        session.execute(update(Model).where(Model.alias == alias).values(alias=None))
        session.execute(update(Model).where(Model.id == model_id).values(alias=alias))
        session.commit()


def held(api: Api) -> list[str]:
    return [model.id for model in api.engine.held or ()]


def test_models_with_a_name_and_the_default_are_held(api: Api) -> None:
    wait_until(lambda: api.engine.held == (), timeout_s=20)
    first, second = api.model(), api.model(alias="night")
    wait_until(lambda: held(api) == [second], timeout_s=20)  # the newest is also the default
    third = api.model()
    wait_until(lambda: held(api) == [third, second], timeout_s=20)
    move(api, "night", first)
    wait_until(lambda: held(api) == [third, first], timeout_s=20)


def test_models_that_a_plan_was_pinned_to_are_expected(api: Api) -> None:
    shape = {"backend": "eager", "precision": "fp32", "streams": 1, "threads": 2, "batch_size": 1}
    first, unpinned, named, _ = api.model(), api.model(), api.model(alias="night"), api.model()
    with api.session() as session:
        pinned = update(Model).where(Model.id.in_((first, unpinned, named)))
        session.execute(pinned.values(serving=shape))
        session.commit()
    assert api.client.patch(f"/models/{unpinned}", json={"serving": None}).status_code == 200
    wait_until(lambda: [model.id for model in api.engine.expected] == [first], timeout_s=20)
    assert api.engine.expected[0].shape is not None


def test_an_engine_that_was_away_is_told_what_is_held(make_api: MakeApi) -> None:
    api = make_api(started=False)
    model_id = api.model()
    api.engine.error = EngineUnavailableError("away")
    with api.client:
        assert api.engine.held is None
        api.engine.error = None
        wait_until(lambda: held(api) == [model_id], timeout_s=20)


def test_a_model_is_prepared_before_its_alias_moves(api: Api) -> None:
    model_id = api.model()
    assert api.client.patch(f"/models/{model_id}", json={"alias": "production"}).status_code == 200
    assert [model.id for model in api.engine.prepared] == [model_id]
    assert api.client.patch(f"/models/{model_id}", json={"name": "other"}).status_code == 200
    assert api.client.patch(f"/models/{model_id}", json={"alias": None}).status_code == 200
    assert api.client.patch("/models/none", json={"alias": "x"}).status_code == 404
    assert len(api.engine.prepared) == 1


def test_an_alias_moves_also_without_an_engine(api: Api) -> None:
    model_id = api.model()
    api.engine.error = EngineUnavailableError("away")
    answer = api.client.patch(f"/models/{model_id}", json={"alias": "production"})
    assert answer.status_code == 200
    assert answer.json()["alias"] == "production"


def test_the_former_model_answers_until_its_successor_is_in_memory(api: Api) -> None:
    old, new = api.model(alias="production"), api.model()
    assert model_of(api) == old
    api.engine.loading.add(new)
    move(api, "production", new)
    assert model_of(api) == old
    assert model_of(api, params={"model": new}) == new  # an id is nobody else's name
    api.engine.loading.clear()
    assert model_of(api) == new
    move(api, "production", old)
    assert model_of(api) == old


def test_a_model_that_numbers_the_wanted_class_differently_answers_for_no_other(api: Api) -> None:
    old, new = api.model(alias="production"), api.model()
    with api.session() as session:
        record = {"architecture": "yolox-nano", "classes": ["owl", "cat"], "input_size_hw": [416, 416]}
        session.execute(update(Model).where(Model.id == new).values(record=record))
        session.commit()
    assert model_of(api) == old
    api.engine.loading.add(new)
    move(api, "production", new)
    assert model_of(api) == old
    assert model_of(api, params={"classes": "owl"}) == new


def test_one_answer_is_of_one_model(api: Api) -> None:
    """The successor comes into memory between the two pictures of a request."""
    old, new = api.model(alias="production"), api.model()
    assert model_of(api) == old
    api.engine.loading.add(new)
    api.engine.loads_after_next = True
    move(api, "production", new)
    files = [("image", ("a.jpg", b"one")), ("image", ("b.jpg", b"two"))]
    answer = api.client.post("/detect", files=files)
    assert answer.status_code == 200
    assert answer.json()["model"] == new
    assert len(answer.json()["images"]) == 2


def test_what_was_turned_away_is_counted_by_why(make_api: MakeApi) -> None:
    api = make_api(engine_queue_bytes=2)
    api.model()
    refused = api.client.post("/detect", **PICTURE)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    text = api.get("/metrics").text
    assert 'harrier_detect_rejected_total{reason="overloaded"} 1.0' in text
    assert "harrier_detect_held_bytes 0.0" in text
