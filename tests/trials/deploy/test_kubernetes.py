"""The manifests: valid by Kubernetes' own schemas, and true to the policies that keep messages and keys safe.

There is no cluster; a rolling update is acted out by processes elsewhere (tests/trials/rollout). The overlays are put together here by the
few of kustomize's rules that they use.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it carries no annotations
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from supervisor.run.drain import LEAST_SHARE
from supervisor.settings.table import ALL_SETTINGS, DRAIN_SECONDS

pytestmark = pytest.mark.pure

FOLDER = Path(__file__).parents[3] / "deploy/kubernetes"
OVERLAYS = ("single", "ha", "with-redis")
VERSIONS = ("1.31",)
POD_OWNERS = {"Deployment", "StatefulSet", "CronJob"}
BACKUP = "hashee-agent-backup"
Manifest = dict[str, Any]


@cache
def documents(path: Path) -> tuple[Manifest, ...]:
    """Read once and changed by nobody: every process of a test run reads them when it collects."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is there where the wheel has it
    return tuple(one for one in yaml.load_all(path.read_text(encoding="utf-8"), loader) if one)


def built(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` would give."""
    (said,) = documents(folder / "kustomization.yaml")
    made: list[Manifest] = []
    for resource in said["resources"]:
        path = (folder / resource).resolve()
        made += built(path) if path.is_dir() else documents(path)
    for patch in said.get("patches", ()):
        for change in documents(folder / patch["path"]):
            (target,) = [one for one in made if identity(one) == identity(change)]
            made.remove(target)
            if change.get("$patch") != "delete":
                made.append(merged(target, change))
    return made


def identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def merged(target: Any, change: Any) -> Any:
    """Strategic merge: maps by key, lists of named things by name, all else replaced."""
    if isinstance(target, dict) and isinstance(change, dict):
        return {
            key: merged(target[key], change[key]) if key in target and key in change else {**target, **change}[key]
            for key in {**target, **change}
        }
    if (
        isinstance(target, list)
        and isinstance(change, list)
        and all(isinstance(one, dict) and "name" in one for one in target + change)
    ):
        changes = {one["name"]: one for one in change}
        kept = [merged(one, changes.pop(one["name"])) if one["name"] in changes else one for one in target]
        return [*kept, *changes.values()]
    return change


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        if manifest["kind"] in POD_OWNERS:
            spec = manifest["spec"]
            made_by = spec["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else spec
            yield manifest["metadata"]["name"], made_by["template"]["spec"]


def every_pod() -> list[Any]:
    return [
        pytest.param(spec, id=f"{overlay}-{name}")
        for overlay in OVERLAYS
        for name, spec in pods(built(FOLDER / "overlays" / overlay))
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(overlay: str, version: str) -> None:
    for manifest in [*built(FOLDER / "overlays" / overlay), *documents(FOLDER / "secrets.example.yaml")]:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_file_is_used() -> None:
    used = set()
    for folder in (FOLDER / "base", *(FOLDER / "overlays" / name for name in OVERLAYS)):
        (said,) = documents(folder / "kustomization.yaml")
        names = [*said["resources"], *(patch["path"] for patch in said.get("patches", ()))]
        used |= {folder / "kustomization.yaml", *(folder / name for name in names if name.endswith(".yaml"))}
    assert used == set(FOLDER.glob("base/*.yaml")) | set(FOLDER.glob("overlays/*/*.yaml"))


@pytest.mark.parametrize("spec", every_pod())
def test_a_pod_is_restricted(spec: Manifest) -> None:
    assert spec["automountServiceAccountToken"] is False
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "limits" in container["resources"]
        assert "latest" not in container["image"]


@pytest.mark.parametrize("spec", [one for one in every_pod() if not re.search("redis$|backup$", str(one.id))])
def test_our_pods_have_the_platforms_resources_and_longer_to_stop_than_a_drain_takes(spec: Manifest) -> None:
    (container,) = spec["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "200m", "memory": "256Mi"},
        "limits": {"cpu": "1000m", "memory": "512Mi"},
    }
    waits = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1])
    drain = float(DRAIN_SECONDS.default or 0) * (1 + 2 * LEAST_SHARE)
    assert spec["terminationGracePeriodSeconds"] > waits + drain + 10


def test_the_three_probes_ask_three_questions() -> None:
    spec = dict(pods(built(FOLDER / "overlays/ha")))["hashee-agent-supervisor"]
    (container,) = spec["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["startupProbe"]["tcpSocket"] == {"port": "http"}
    assert "preStop" in container["lifecycle"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_change_never_leaves_fewer_than_before(overlay: str) -> None:
    deployments = [one for one in built(FOLDER / "overlays" / overlay) if one["kind"] == "Deployment"]
    assert deployments
    assert all(
        one["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        for one in deployments
    )


def test_the_overlays_are_what_they_say() -> None:
    single, ha, with_redis = ({identity(one) for one in built(FOLDER / "overlays" / name)} for name in OVERLAYS)
    assert ("Deployment", "hashee-agent-worker") not in single
    assert ("HorizontalPodAutoscaler", "hashee-agent-worker") not in single
    assert ("HorizontalPodAutoscaler", "hashee-agent-worker") in ha
    assert with_redis - ha == {(kind, "hashee-agent-redis") for kind in ("StatefulSet", "Service", "NetworkPolicy")}
    (supervisor,) = [
        one for one in built(FOLDER / "overlays/single") if identity(one) == ("Deployment", "hashee-agent-supervisor")
    ]
    assert supervisor["spec"]["replicas"] == 1
    assert supervisor["spec"]["template"]["spec"]["containers"][0]["args"] == ["supervisor", "--workers", "2"]


def test_secrets_are_files_and_a_workers_secret_holds_none_of_the_agents_keys() -> None:
    secrets = {one["metadata"]["name"]: set(one["stringData"]) for one in documents(FOLDER / "secrets.example.yaml")}
    assert secrets["hashee-agent-worker"] == {"redis_url", "bus_key"}
    assert secrets["hashee-agent-files"] == {"agent_token", "files_key"}
    names = {setting.name for setting in ALL_SETTINGS}
    secret = {setting.name for setting in ALL_SETTINGS if setting.secret}
    for name, spec in pods(built(FOLDER / "overlays/ha")):
        (container,) = spec["containers"]
        said = {one["name"]: one["value"].rpartition("/")[2] for one in container["env"]}
        files = {name: file for name, file in said.items() if name not in ("HOME", "HASHEE_SPOOL_DIR")}
        assert {variable.removesuffix("_FILE") for variable in files} <= secret
        assert set(files.values()) == secrets["hashee-agent-supervisor" if name == BACKUP else name]
    (config,) = [one for one in built(FOLDER / "overlays/ha") if one["kind"] == "ConfigMap"]
    assert set(config["data"]) <= names - secret


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_nightly_backup_never_runs_twice_and_writes_to_a_volume(overlay: str) -> None:
    (job,) = [one for one in built(FOLDER / "overlays" / overlay) if one["kind"] == "CronJob"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    *command, folder = container["args"]
    assert command == ["backup", "--keep", "14"]
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == folder]
    (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
    claims = [identity(one) for one in built(FOLDER / "overlays" / overlay) if one["kind"] == "PersistentVolumeClaim"]
    assert claims == [("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])]


def test_only_prometheus_comes_in_and_only_our_pods_reach_redis_and_the_file_gate() -> None:
    policies = {
        identity(one)[1]: one["spec"] for one in built(FOLDER / "overlays/with-redis") if one["kind"] == "NetworkPolicy"
    }
    assert policies["hashee-agent"]["ingress"] == []
    assert [port["port"] for port in policies["hashee-agent-metrics"]["ingress"][0]["ports"]] == [9090]
    assert policies["hashee-agent-redis"]["egress"] == []
    gate = policies["hashee-agent-files"]
    assert {port["port"] for rule in gate["egress"] for port in rule["ports"]} == {53, 443}
    assert [port["port"] for rule in gate["ingress"] for port in rule["ports"]] == [9477]
    (namespace,) = [one for one in built(FOLDER / "base") if one["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
