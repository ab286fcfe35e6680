"""What image and compose.yaml must say. That they work is tried by `make containers` (in_containers.py)."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from supervisor.keeper.keeper import Timings
from supervisor.settings.table import ALL_SETTINGS, DRAIN_SECONDS

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy/docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("supervisor", "worker", "files")


def test_the_image_is_built_from_locks_and_runs_as_a_numbered_user_without_a_shell() -> None:
    assert DOCKERFILE.count("FROM ${BASE}") == 2
    assert "ARG BASE=python:3.12-slim" in DOCKERFILE
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    assert DOCKERFILE.index("COPY requirements.lock") < DOCKERFILE.index("COPY supervisor supervisor")
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["hashee-agent"]' in DOCKERFILE
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE
    assert re.search(r'^HEALTHCHECK .* CMD \["hashee-agent", "healthcheck", "--live"\]$', DOCKERFILE, re.MULTILINE)
    assert "org.opencontainers.image.version" in DOCKERFILE


def test_everything_that_is_copied_exists_and_is_not_ignored_and_nothing_else_is_let_in() -> None:
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert all((ROOT / name).exists() for name in copied)
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_confined_and_limited(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert (limits["memory"], limits["cpus"]) == ("512M", "1.0")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith("0")
    assert "ports" not in service, "a published port collides when the service is scaled or replaced"


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_longer_to_stop_than_a_drain_takes(name: str) -> None:
    timings = Timings()
    longest = float(DRAIN_SECONDS.default or 0) + timings.drain_margin + timings.redis_stop
    assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > longest + 10


def test_secrets_are_files_and_a_worker_has_none_of_the_agents_keys() -> None:
    secret = {setting.name for setting in ALL_SETTINGS if setting.secret and setting.name != "HASHEE_REDIS_URL"}
    for name in OURS:
        given = set(SERVICES[name]["environment"])
        assert not given & secret
        assert {f"/run/secrets/{one}" for one in SERVICES[name]["secrets"]} == {
            value for variable, value in SERVICES[name]["environment"].items() if variable.endswith("_FILE")
        }
        assert set(SERVICES[name]["secrets"]) <= set(COMPOSE["secrets"])
    assert SERVICES["worker"]["secrets"] == ["bus_key"]
    assert SERVICES["files"]["secrets"] == ["agent_token", "files_key"]


def test_every_setting_that_is_named_exists() -> None:
    known = {setting.name for setting in ALL_SETTINGS} | {f"{setting.name}_FILE" for setting in ALL_SETTINGS}
    assert {name for one in OURS for name in SERVICES[one]["environment"]} - known == {"HOME"}
    example = set(re.findall(r"^#?([A-Z_]+)=", (FOLDER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert example - known == {"HASHEE_IMAGE"}
    used = set(re.findall(r"\$\{([A-Z_]+)", (FOLDER / "compose.yaml").read_text(encoding="utf-8")))
    assert used <= example


def test_redis_keeps_everything() -> None:
    command = SERVICES["redis"]["command"]
    said = dict(zip(command[1::2], command[2::2], strict=True))
    assert said["--appendonly"] == "yes"
    assert said["--appendfsync"] == "always"
    assert said["--maxmemory-policy"] == "noeviction"
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]
