"""The files of deploy/ agree with each other, with the image and with the settings: `check-settings` runs in the environment of each.

As root each is tried as the user and with the volumes that the platform would give: an emptyDir under fsGroup, a named volume.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bus.settings.shared import SPOOL_MB
from tests.other_user import USER, reachable
from tests.supervisor.settings.environment import AGENT_ID, ED25519_PRIVATE, STORE_KEY, TOKEN, X25519_PRIVATE
from tests.trials.deploy.test_docker import COMPOSE, DOCKERFILE, SERVICES
from tests.trials.deploy.test_docker import FOLDER as DOCKER
from tests.trials.deploy.test_kubernetes import FOLDER as KUBERNETES
from tests.trials.deploy.test_kubernetes import OVERLAYS, built, pods

__all__ = ["reachable"]

ROOT = Path(__file__).parents[3]
SYSTEMD = ROOT / "deploy/systemd"
AS_USER = f"""
import encodings.ascii, os, sys
import supervisor.cli.check_settings, supervisor.settings.key_settings
from supervisor.cli import main
if os.geteuid() == 0:
    os.setgroups([{USER}]); os.setgid({USER}); os.setuid({USER})
main()
"""
FILLED_IN = {
    "redis_url": "rediss://agent:password@redis.example.com:6380/0",
    "agent_token": TOKEN,
    "x25519_private_base64": X25519_PRIVATE,
    "ed25519_private_base64": ED25519_PRIVATE,
    "store_key": STORE_KEY,
    "bus_key": STORE_KEY,
    "files_key": STORE_KEY,
}
IMAGE = dict(re.findall(r"([A-Z_]+)=(\S+)", re.search(r"^ENV (?:.*\\\n)*.*$", DOCKERFILE.split("FROM")[2], re.M)[0]))  # type: ignore[index]


OPTIONS = {"worker": ["--worker"], "files": ["--files"]}


def check_settings(
    folder: Path, environ: Mapping[str, str], *, process: str, state_mode: int, has_spool: bool = False
) -> None:
    """In such an environment, with the secrets filled in, and state directory and spool (if it has one) each on a volume of that mode, it ends with 0."""
    volume, spool = folder / "volume", folder / "spool"
    volume.mkdir()
    spool.mkdir()
    secrets = folder / "secrets"
    secrets.mkdir()
    secrets.chmod(0o755)
    for name, value in FILLED_IN.items():
        (secrets / name).write_text(value, encoding="utf-8")
        (secrets / name).chmod(0o440)
    if os.geteuid() == 0:
        for mounted in (volume, spool):
            os.chown(mounted, 0 if state_mode & 0o2000 else USER, USER)
        for file in secrets.iterdir():
            os.chown(file, 0, USER)
    for mounted in (volume, spool):
        mounted.chmod(state_mode)
    given = {**IMAGE, **environ, "PYTHONPATH": str(ROOT), "HASHEE_AGENT_ID": AGENT_ID}
    given = {
        name: str(secrets / value.rpartition("/")[2]) if name.endswith("_FILE") else value
        for name, value in given.items()
    }
    given = {name: value.replace("/var/lib/hashee-agent", str(volume)) for name, value in given.items()}
    if has_spool:
        given = {name: value.replace("/var/spool/hashee-agent", str(spool)) for name, value in given.items()}
    command = [sys.executable, "-c", AS_USER, "check-settings", *OPTIONS.get(process, ())]
    done = subprocess.run(command, env=given, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


def our_containers() -> list[Any]:
    """Environment and pod of each of ours, in every overlay."""
    return list(_our_containers())


def _our_containers() -> Iterator[Any]:
    for overlay in OVERLAYS:
        manifests = built(KUBERNETES / "overlays" / overlay)
        (config,) = [one for one in manifests if one["kind"] == "ConfigMap"]
        for name, spec in pods(manifests):
            (container,) = spec["containers"]
            if container["image"].startswith("hashee-agent:"):
                environ = config["data"] | {one["name"]: one["value"] for one in container["env"]}
                yield pytest.param(environ, spec, id=f"{overlay}-{name}")


@pytest.mark.parametrize(("environ", "spec"), our_containers())
def test_check_settings_is_content_in_a_pod(reachable: Path, environ: dict[str, str], spec: dict[str, Any]) -> None:
    (container,) = spec["containers"]
    assert spec["securityContext"]["fsGroup"] == USER
    has_spool = any(one["mountPath"] == "/var/spool/hashee-agent" for one in container["volumeMounts"])
    check_settings(reachable, environ, process=container["args"][0], state_mode=0o2777, has_spool=has_spool)


@pytest.mark.parametrize("service", ["supervisor", "worker", "files"])
def test_check_settings_is_content_in_a_container_of_compose(reachable: Path, service: str) -> None:
    environ = {name: interpolated(value) for name, value in SERVICES[service]["environment"].items()}
    check_settings(reachable, environ, process=service, state_mode=0o700)


@pytest.mark.parametrize(
    "unit",
    ["hashee-agent.service", "hashee-agent@.service", "hashee-agent-worker@.service", "hashee-agent-files.service"],
)
def test_check_settings_is_content_in_a_unit(reachable: Path, unit: str) -> None:
    lines = (SYSTEMD / unit).read_text(encoding="utf-8").splitlines()
    environ = dict(line.removeprefix("Environment=").split("=", 1) for line in lines if line.startswith("Environment="))
    process = next((one for one in OPTIONS if one in unit), "supervisor")
    if process == "supervisor":
        example = (SYSTEMD / "env.example").read_text(encoding="utf-8")
        environ |= dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
        assert "StateDirectoryMode=0700" in lines
        environ |= {"STATE_DIRECTORY": "/var/lib/hashee-agent", "HASHEE_STATE_DIR": ""}
    named = {
        "worker": ("redis_url", "bus_key"),
        "files": ("agent_token", "files_key"),
        "supervisor": ("agent_token", "x25519_private_base64", "ed25519_private_base64"),
    }[process]
    environ |= {f"HASHEE_{name.upper()}": FILLED_IN[name] for name in named}
    check_settings(reachable, environ, process=process, state_mode=0o700)


def interpolated(value: str) -> str:
    """As Compose does, with .env.example beside it."""
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    known = dict(re.findall(r"^([A-Z0-9_]+)=(.+)$", example, re.MULTILINE)) | {"HASHEE_AGENT_ID": AGENT_ID}
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: str(known.get(found[1], found[2] or "")), value)


@pytest.mark.pure
@pytest.mark.parametrize(("environ", "spec"), our_containers())
def test_everything_that_a_pod_writes_has_a_place(environ: dict[str, str], spec: dict[str, Any]) -> None:
    (container,) = spec["containers"]
    kinds = {one["name"]: one for one in spec["volumes"]}
    writable = {one["mountPath"] for one in container["volumeMounts"] if "emptyDir" in kinds[one["name"]]}
    assert "/tmp" in writable  # noqa: S108
    has_place({**IMAGE, **environ}, writable, writes_state=container["args"][0] == "supervisor")


@pytest.mark.pure
@pytest.mark.parametrize("service", ["supervisor", "worker", "files"])
def test_everything_that_a_container_of_compose_writes_has_a_place(service: str) -> None:
    said = SERVICES[service]
    named = [one.split(":") for one in said.get("volumes", ())]
    assert {name for name, _ in named} <= set(COMPOSE["volumes"])
    has_place(
        {**IMAGE, **said["environment"]},
        {*said["tmpfs"], *(path for _, path in named)},
        writes_state=service == "supervisor",
    )


def has_place(environ: Mapping[str, str], writable: set[str], *, writes_state: bool) -> None:
    assert environ["HOME"] in writable
    assert not writes_state or environ["HASHEE_STATE_DIR"] in writable


@pytest.mark.pure
def test_sealed_files_on_their_way_out_have_a_disk_with_room_for_their_quota_wherever_workers_run() -> None:
    """On a tmpfs they would count against the limit of memory; over an emptyDir's limit the kubelet ends the pod."""
    with_workers = []
    for parameters in our_containers():
        environ, spec = parameters.values
        assert isinstance(environ, dict)
        assert isinstance(spec, dict)
        (container,) = spec["containers"]
        if container["args"][0] == "worker" or container["args"][:2] == ["supervisor", "--workers"]:
            if container["args"][2:] == ["0"]:
                continue
            with_workers.append(parameters.id)
            mount = mount_above(environ["HASHEE_SPOOL_DIR"], container["volumeMounts"])
            (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
            assert mount["mountPath"] != environ["HASHEE_SPOOL_DIR"], (
                "an emptyDir is root's, and the spool has to be a worker's own"
            )
            assert "medium" not in volume["emptyDir"]
            assert mebibytes(volume["emptyDir"]["sizeLimit"]) > int(environ["HASHEE_SPOOL_MB"])
    assert len(with_workers) == len(OVERLAYS), with_workers
    worker = SERVICES["worker"]
    spool, quota = worker["environment"]["HASHEE_SPOOL_DIR"], worker["environment"]["HASHEE_SPOOL_MB"]
    (volume,) = worker["volumes"]
    name, path = volume.split(":")
    assert name in COMPOSE["volumes"]
    assert spool.startswith(f"{path}/")
    assert not any(f"{spool}/".startswith(f"{one}/") for one in worker["tmpfs"])
    assert quota == SPOOL_MB.default
    unit = (SYSTEMD / "hashee-agent-worker@.service").read_text(encoding="utf-8")
    assert "StateDirectory=hashee-agent-worker\nStateDirectoryMode=0700\n" in unit
    assert f"HASHEE_SPOOL_MB ({SPOOL_MB.default}) in worker.env" in unit
    assert f"\n#HASHEE_SPOOL_MB={SPOOL_MB.default}\n" in (SYSTEMD / "env.example").read_text(encoding="utf-8")


def mount_above(path: str, mounts: list[dict[str, str]]) -> dict[str, str]:
    """The volume on which a path lies."""
    above = [one for one in mounts if f"{path}/".startswith(f"{one['mountPath']}/")]
    return max(above, key=lambda one: len(one["mountPath"]))


def mebibytes(said: str) -> int:
    return int(said.removesuffix("Mi"))


@pytest.mark.pure
def test_all_say_the_same_user_state_port_redis_and_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"ARG VERSION={version}\n" in DOCKERFILE
    assert f"USER {USER}:{USER}\n" in DOCKERFILE
    assert f"-o {USER} -g {USER} {IMAGE['HASHEE_STATE_DIR']} " in DOCKERFILE
    assert f"VOLUME {IMAGE['HASHEE_STATE_DIR']}\n" in DOCKERFILE
    assert "EXPOSE 9090\n" in DOCKERFILE
    assert IMAGE["HASHEE_HTTP_HOST"] == "0.0.0.0", "or no probe reaches it"  # noqa: S104
    assert {SERVICES[name]["user"] for name in ("supervisor", "worker", "files")} == {f"{USER}:{USER}"}
    assert (SERVICES["supervisor"]["expose"], SERVICES["files"]["expose"]) == (["9090"], ["9477"])
    assert IMAGE["HASHEE_FILES_LISTEN"] == "0.0.0.0:9477", "or no worker reaches it"
    for spec in [parameters.values[1] for parameters in our_containers()]:
        assert isinstance(spec, dict)
        (container,) = spec["containers"]
        security = spec["securityContext"]
        assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {USER}
        assert container["image"] == f"hashee-agent:{version}"
        assert [port["containerPort"] for port in container.get("ports", ())] in ([9090], [9477], [])
    redis = dict(pods(built(KUBERNETES / "overlays/with-redis")))["hashee-agent-redis"]["containers"][0]
    assert redis["args"] == SERVICES["redis"]["command"]
    assert redis["image"] == SERVICES["redis"]["image"]
    relay = interpolated(SERVICES["supervisor"]["environment"]["HASHEE_BASE_URL"])
    (config,) = [one for one in built(KUBERNETES / "base") if one["kind"] == "ConfigMap"]
    assert config["data"]["HASHEE_BASE_URL"] == relay
    assert f"HASHEE_BASE_URL={relay}\n" in (SYSTEMD / "env.example").read_text(encoding="utf-8")


@pytest.mark.pure
def test_what_the_procfile_the_units_and_the_manifests_start_are_commands_that_exist() -> None:
    from supervisor.cli import COMMANDS  # noqa: PLC0415

    started = [line.split(": ")[1].split() for line in (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()]
    for unit in SYSTEMD.glob("*.service"):
        started += [
            line.split()
            for line in re.findall(r"^Exec\w+=.*/(hashee-agent .*)$", unit.read_text(encoding="utf-8"), re.M)
        ]
    started += [["hashee-agent", *SERVICES[name]["command"]] for name in ("supervisor", "worker")]
    started += [["hashee-agent", *spec["containers"][0]["args"]] for _, spec in pods(built(KUBERNETES / "overlays/ha"))]
    assert len(started) > 8
    for program, command, *_ in started:
        assert program == "hashee-agent"
        assert command in COMMANDS
