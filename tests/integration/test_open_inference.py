"""Triton's own client with a real server and engine: what it sends is understood, what it gets it reads."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from app.database.upgrade import upgrade_database
from app.settings import Settings
from tests.pictures import jpeg, noise
from tests.published import CLASSES, add_model
from tests.serving import EngineProcess, accepts_tcp, free_port, short_folder, wait_for

PICTURE = jpeg(noise(150, 100))
ALL = {"score_threshold": 0.01}
"""Parameters with which random weights see something."""


@pytest.fixture(scope="module")
def client() -> Iterator[triton.InferenceServerClient]:
    """A client of a server with one model: `m1`, also called `production`."""
    with short_folder() as home:
        settings = Settings(home=home, device="cpu", port=free_port(), min_free_bytes=1, _env_file=None)
        upgrade_database(settings)
        add_model(settings, "m1", alias="production")
        engine = EngineProcess(settings)
        given = {"HOME": home, "PORT": settings.port, "MIN_FREE_BYTES": 1}
        environment = {**os.environ, **{f"HARRIER_{name}": str(value) for name, value in given.items()}}
        server = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment)
        try:
            wait_for(lambda: accepts_tcp(settings.port), 60)
            with triton.InferenceServerClient(f"127.0.0.1:{settings.port}", concurrency=2) as client:
                yield client
        finally:
            server.terminate()
            server.wait(40)
            engine.stop()


def pictures(*contents: bytes, binary: bool = True, columns: tuple[int, ...] = ()) -> triton.InferInput:
    texts = contents if binary else [base64.b64encode(content) for content in contents]
    tensor = triton.InferInput("image", [len(contents), *columns], "BYTES")
    tensor.set_data_from_numpy(
        np.array(texts, dtype=np.object_).reshape(len(contents), *columns), binary_data=binary
    )
    return tensor


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **options)
    return error.value.status(), error.value.message()


def test_it_learns_what_is_here(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    wait_for(client.is_server_ready, 60)
    assert client.is_model_ready("production")
    assert client.is_model_ready("production", "m1")
    assert client.get_server_metadata()["name"] == "harrier"
    assert client.get_model_metadata("production")["versions"] == ["m1"]
    assert client.get_model_config("m1")["max_batch_size"] == 0
    assert {entry["name"] for entry in client.get_model_repository_index()} == {"m1", "production"}
    assert refused(client.get_model_metadata, "nobody")[0] == "404"


def test_every_way_to_send_and_to_answer_sees_the_same(client: triton.InferenceServerClient) -> None:
    names = ("num_detections", "boxes", "scores", "class_ids", "labels", "errors")
    first = client.infer("production", [pictures(PICTURE, PICTURE)], request_id="7", parameters=ALL)
    assert first.get_response()["id"] == "7"
    (count, same) = first.as_numpy("num_detections")
    assert count == same > 0
    assert first.as_numpy("boxes").shape == (2, count, 4)
    assert {label.decode() for label in first.as_numpy("labels").ravel()} <= set(CLASSES)
    assert list(first.as_numpy("errors")) == [b"", b""]
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in reversed(names)]
    mixed = [triton.InferRequestedOutput(name, binary_data=name == "boxes") for name in names]
    for tensor, wanted in (
        (pictures(PICTURE, PICTURE, binary=False), outputs),
        (pictures(PICTURE, PICTURE, columns=(1,)), mixed),
    ):
        other = client.infer("m1", [tensor], outputs=wanted, parameters=ALL)
        for name in names:
            seen, again = first.as_numpy(name), other.as_numpy(name)
            assert seen.dtype == again.dtype
            assert np.array_equal(seen, [*map(_encoded, again)] if seen.dtype == object else again), name


def _encoded(row: Any) -> Any:
    """In JSON the client leaves texts as they are."""
    if isinstance(row, np.ndarray):
        return [_encoded(each) for each in row]
    return row.encode() if isinstance(row, str) else row


def test_parameters_choose(client: triton.InferenceServerClient) -> None:
    few = client.infer("m1", [pictures(PICTURE)], parameters={**ALL, "max_detections": 2})
    assert few.as_numpy("boxes").shape == (1, 2, 4)
    owls = client.infer("m1", [pictures(PICTURE)], parameters={**ALL, "classes": "owl,dog"})
    assert set(owls.as_numpy("class_ids").ravel()) <= {1, 2}
    nothing = client.infer("m1", [pictures(PICTURE)], parameters={"score_threshold": 1.0})
    assert nothing.as_numpy("boxes").shape == (1, 0, 4)
    assert nothing.as_numpy("labels").shape == (1, 0)


def test_a_picture_that_cannot_be_used_spoils_no_other(client: triton.InferenceServerClient) -> None:
    sent = pictures(b"no picture", PICTURE, PICTURE[:300])
    answer = client.infer("m1", [sent], parameters=ALL)
    first, second, third = answer.as_numpy("num_detections")
    assert (first, third) == (-1, -1)
    assert second > 0
    assert [bool(reason) for reason in answer.as_numpy("errors")] == [True, False, True]
    status, message = refused(client.infer, "m1", [sent], outputs=[triton.InferRequestedOutput("boxes")])
    assert (status, message.partition(":")[0]) == ("400", "picture 0")
    assert refused(client.infer, "m1", [pictures(b"no picture")])[0] == "415"


def test_what_is_not_offered_is_refused_in_words_it_shows(client: triton.InferenceServerClient) -> None:
    assert refused(client.get_system_shared_memory_status)[0] == "404"
    assert refused(client.load_model, "m1")[0] == "404"
    shared = triton.InferInput("image", [1], "BYTES")
    shared.set_shared_memory("region", 10)
    assert "shared_memory_region" in refused(client.infer, "m1", [shared])[1]
    top = triton.InferRequestedOutput("scores", class_count=3)
    assert "classification" in refused(client.infer, "m1", [pictures(PICTURE)], outputs=[top])[1]
    assert "sequence_id" in refused(client.infer, "m1", [pictures(PICTURE)], sequence_id=5)[1]
    packed = refused(client.infer, "m1", [pictures(PICTURE)], request_compression_algorithm="gzip")
    assert packed[0] == "415"
