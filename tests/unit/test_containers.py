"""Dockerfile and docker-compose.yml: what they start exists, and nothing in them is open by default."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.alive import CHECKS, END_FROZEN, TIMEOUT_S
from app.detect.engine_client import GRACE_S
from app.settings import Settings
from app.supervisor.frozen import STACKS_S

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONCE = {"migrate", "check", "check-gpu"}
RUNNING = sorted(SERVICES.keys() - ONCE)
CHECKED = {"engine": "check", "worker-train": "check", "engine-gpu": "check-gpu", "worker-gpu": "check-gpu"}
"""What computes, and which service tries its settings before."""
FROM = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def stages(dockerfile: str) -> dict[str, str]:
    """Each stage's name and its text."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", dockerfile, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def lineage(dockerfile: str, stage: str) -> str:
    """The text of a stage and of all that it is built on."""
    parents, texts = {name: parent for parent, name in FROM.findall(dockerfile)}, stages(dockerfile)
    text = ""
    while stage in texts:
        text = texts[stage] + text
        stage = parents[stage]
    return text


def test_every_base_image_has_a_version(dockerfile: str) -> None:
    names = {name for _, name in FROM.findall(dockerfile)}
    images = {image for image, _ in FROM.findall(dockerfile) if image not in names}
    images |= {service["image"] for service in SERVICES.values()}
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []


@pytest.mark.parametrize("target", ["api", "worker"])
def test_a_target_runs_as_nobody_in_particular(dockerfile: str, target: str) -> None:
    users = re.findall(r"^USER (\S+)$", lineage(dockerfile, target), re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}


@pytest.mark.parametrize("target", ["api", "worker"])
def test_dependencies_come_from_the_lock_before_the_source(dockerfile: str, target: str) -> None:
    text = lineage(dockerfile, target)
    assert "type=bind,source=requirements.lock" in text
    assert text.index("--require-hashes -r") < text.index("COPY ")


def test_the_build_context_holds_what_is_copied_and_no_more(dockerfile: str) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()
    }
    assert "*" in lines
    assert allowed == copied | {"requirements.lock"}


def test_every_package_is_copied(dockerfile: str) -> None:
    assert all(f"COPY {package} /src/{package}" in dockerfile for package in ("app", "worker", "detection"))


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_built_from_a_target_that_exists(dockerfile: str, name: str) -> None:
    assert OURS[name]["build"]["target"] in stages(dockerfile)


@pytest.mark.parametrize("name", RUNNING)
def test_a_service_is_asked_for_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", RUNNING)
def test_a_service_is_there_again_after_a_crash_and_after_a_restart_of_the_host(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(ONCE))
def test_what_is_done_once_is_not_tried_again(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"
    assert "healthcheck" not in SERVICES[name]


@pytest.mark.parametrize("name", CHECKED)
def test_a_wrong_setting_is_found_before_anything_is_started_that_would_end_of_it(name: str) -> None:
    service, check = SERVICES[name], SERVICES[CHECKED[name]]
    assert service["depends_on"][CHECKED[name]] == {"condition": "service_completed_successfully"}
    assert check["command"] == ["python", "-m", "app.engine", "--check"]
    for shared in ("image", "environment", "profiles", "deploy"):
        assert check.get(shared) == service.get(shared), "another answer might be right there"


@pytest.mark.parametrize("name", sorted(OURS.keys() - ONCE))
def test_a_frozen_process_is_ended_by_its_health_check(name: str) -> None:
    check, program = SERVICES[name]["healthcheck"], name.partition("-")[0]
    assert program in CHECKS
    assert check["test"] == ["CMD", "python", "-m", "app.alive", program, END_FROZEN]
    longest_s = TIMEOUT_S + max(TIMEOUT_S, GRACE_S) + STACKS_S
    assert int(check["timeout"].removesuffix("s")) > longest_s, "it must come to its end"
    assert SERVICES[name]["init"] is True, "the first process of a container cannot be killed from inside"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        awaited = "service_healthy" if other in RUNNING else "service_completed_successfully"
        assert condition == {"condition": awaited}


@pytest.mark.parametrize("name", OURS)
def test_a_module_that_a_service_starts_exists(name: str) -> None:
    service = OURS[name]
    for command in (service.get("command", []), service.get("healthcheck", {}).get("test", [])[1:]):
        if command[:2] == ["python", "-m"]:
            found = importlib.util.find_spec(command[2])
            assert found is not None
            if found.submodule_search_locations:
                assert importlib.util.find_spec(f"{command[2]}.__main__") is not None


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_given_settings_that_exist(name: str) -> None:
    known = {f"HARRIER_{field.upper()}" for field in Settings.model_fields}
    assert OURS[name].get("environment", {}).keys() <= known


def test_every_password_must_be_given() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    passwords = re.findall(r"\$\{\w*(?:PASSWORD|KEY|SECRET)\w*([^}]*)\}", text)
    assert passwords
    assert all(rest.startswith(":?") for rest in passwords)
    literal = re.findall(r"(?im)^\s*\w*(?:password|requirepass|auth)\w*[: ]+(?!\s*\"?\$\{)\S.*$", text)
    assert literal == []


def test_only_the_api_is_published_and_on_loopback_unless_told() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["${HARRIER_PUBLISH:-127.0.0.1:8000}:8000"]}


@pytest.mark.parametrize("name", OURS)
def test_our_services_can_write_only_to_their_home(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["volumes"] == ["home:/var/lib/harrier"]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_either_profile_serves_every_queue_and_detects(profile: str) -> None:
    chosen = [service for service in OURS.values() if service.get("profiles", [profile]) == [profile]]
    commands = [service["command"] for service in chosen if "command" in service]
    queues = [command[-1] for command in commands if "--queue" in command]
    assert sorted(queues) == ["cpu", "gpu"]
    assert [command[-1] for command in commands].count("app.engine") == 1


@pytest.mark.parametrize("name", ["worker-gpu", "engine-gpu", "check-gpu"])
def test_the_gpu_is_reserved(name: str) -> None:
    (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert SERVICES[name]["environment"]["HARRIER_DEVICE"] == "auto"


def test_every_variable_is_explained() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{(\w+)", text)) | {COMPOSE["secrets"]["harrier_key"]["environment"]}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert [name for name in variables if not re.search(rf"^#? ?{name}=", example, re.MULTILINE)] == []
