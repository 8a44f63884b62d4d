"""What was probably meant: near names, in the same object or one level down."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, Json, TypeAdapter, ValidationError

from app.api.faults import MOST_FAULTS, invalid_input, problems_of
from app.api.suggestions import did_you_mean, field_like


class Leaf(BaseModel, extra="forbid"):
    rate: float = 1.0
    kind: Literal["sgd", "adam", "adamw"] = "sgd"


class Tree(BaseModel, extra="forbid"):
    leaf: Leaf = Leaf()
    leaves: list[Leaf] = []
    maybe: Leaf | None = None
    text: Json[Leaf] | None = None
    size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    sides: tuple[int, int] = (1, 2)


def faults(body: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Tree).validate_python(body)
    found = problems_of(caught.value.errors(include_url=False), shape=Tree, sent=body)
    return {problem.pointer: problem.problem for problem in found}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("epoch", "epochs"), ("Epochs", "epochs"), ("epocsh", "epochs"), ("batchsize", "batch_size"), ("x", "")],
)
def test_the_nearest_name_is_suggested(given: str, meant: str) -> None:
    said = did_you_mean(given, ["epochs", "batch_size", "name"])
    assert said == (f"; did you mean `{meant}`?" if meant else "")


def test_nothing_is_compared_with_a_name_that_is_no_name() -> None:
    assert did_you_mean("epochs" * 100_000, ["epochs"]) == ""


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        (("laef",), "leaf"),
        (("leaf", "rat"), "rate"),
        (("leaves", 3, "rat"), "rate"),
        (("maybe", "rat"), "rate"),
        (("maybe", "function-wrap[read()]", "rat"), "rate"),
        (("text", "rat"), "rate"),
        (("rate",), "leaf.rate"),
    ],
)
def test_fields_are_looked_for_where_they_would_stand(path: tuple[str | int, ...], suggestion: str) -> None:
    assert field_like(Tree, path) == f"; did you mean `{suggestion}`?"


def test_what_has_no_fields_has_no_suggestion() -> None:
    assert field_like(object, ("a",)) == ""
    assert field_like(Tree, ("leaf", "utterly-different")) == ""


def test_each_fault_has_its_place_and_what_was_meant() -> None:
    assert faults({"leaf": {"rat": 1}, "leaves": [{"kind": "adan"}], "sides": [1]}) == {
        "/leaf/rat": "this field is not known; did you mean `rate`?",
        "/leaves/0/kind": "Input should be 'sgd', 'adam' or 'adamw'; did you mean `adam`?",
        "/sides/1": "Field required",
    }


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (-1, "Input should be greater than or equal to 1, or 'auto'"),
        (
            "aut",
            "Input should be a valid integer, unable to parse string as an integer, or 'auto'"
            "; did you mean `auto`?",
        ),
    ],
)
def test_one_mistake_is_one_fault_whatever_it_could_have_been(size: object, problem: str) -> None:
    assert faults({"size": size}) == {"/size": problem}


def test_keys_are_escaped_and_unions_are_no_keys() -> None:
    assert list(faults({"a/b~c": 1, "maybe": {"rate": "x"}})) == ["/maybe/rate", "/a~1b~0c"]


def test_a_flood_of_faults_is_cut() -> None:
    found = faults({f"field{number}": 1 for number in range(10_000)})
    assert len(found) == MOST_FAULTS


def test_an_answer_names_the_first_and_counts_the_rest() -> None:
    body = {"leaf": {"rate": "x"}, "nothing": 1}
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Tree).validate_python(body)
    error = invalid_input(problems_of(caught.value.errors(), shape=Tree, sent=body))
    assert error.detail.startswith("/leaf/rate: Input should be a valid number")
    assert error.detail.endswith("(and 1 more)")


def test_an_answer_begins_with_what_is_known_to_help() -> None:
    body = {"leaf": {"rate": "x"}, "leafs": {}, "sides": []}
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Tree).validate_python(body)
    error = invalid_input(problems_of(caught.value.errors(), shape=Tree, sent=body))
    assert error.detail.startswith("/leafs: this field is not known; did you mean `leaf")
    assert [fault.pointer for fault in error.problems][:2] == ["/leafs", "/leaf/rate"]
