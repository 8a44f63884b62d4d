"""Families of detectors: which one a written configuration is about, and that none is taken for another."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from pydantic import TypeAdapter, ValidationError

from detection.architectures import ARCHITECTURES
from detection.errors import ConfigError, UnknownNameError
from detection.families import DEFAULT_FAMILY, FAMILIES, family_of
from detection.families.reading import config_schema, family_named, read_config
from detection.training.config import AssignerConfig, AugmentationConfig, DetectorConfig, LossConfig
from detection.training.recipes import resolve


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_every_architecture_can_be_configured(name: str) -> None:
    config = resolve(family_of(name).config(architecture=name), num_images=100)
    assert read_config(asdict(config)) == config
    assert resolve(config, num_images=100) == config


@pytest.mark.parametrize("name", FAMILIES.names())
def test_every_option_of_a_family_is_described_once_inherited_or_not(name: str) -> None:
    properties = config_schema(FAMILIES[name])["properties"]
    assert properties["input_size"]["description"].startswith("Side of the square")
    config = FAMILIES[name].config(architecture="any")
    for part in {"assigner", "loss", "augmentation"} & properties.keys():
        schema = TypeAdapter(type(getattr(config, part))).json_schema()
        assert schema["additionalProperties"] is False
    assert config_schema(FAMILIES[name])["$defs"]


@pytest.mark.parametrize("written", [None, 5, [], {}, {"architecture": 7}, {"architecture": "x" * 10**6}])
def test_what_names_no_architecture_is_about_the_default_family(written: object) -> None:
    assert family_named(written) is DEFAULT_FAMILY


def test_an_unknown_name_is_about_the_family_of_the_nearest_one() -> None:
    assert family_named({"architecture": "yolox_tiny"}).name == "yolox"
    with pytest.raises(UnknownNameError):
        family_of("yolox_tiny")


def test_a_field_of_nobody_is_refused() -> None:
    with pytest.raises(ValidationError, match="tau"):
        read_config({"assigner": {"tau": 1}})


def test_a_configuration_of_another_family_is_refused() -> None:
    other = DetectorConfig(
        architecture="yolox-nano",
        assigner=AssignerConfig(),
        loss=LossConfig(),
        augmentation=AugmentationConfig(),
    )
    with pytest.raises(ConfigError, match="needs a YoloxConfig"):
        resolve(other, num_images=10)
