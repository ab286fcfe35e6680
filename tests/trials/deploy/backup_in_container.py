"""Part of `make containers`: the CronJob's container as its manifest says: command, user, mounts, read-only root, no capability, its limits."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]

from tests.trials.deploy.in_containers import IMAGE, ROOT, RUN_LIMITS, Services, build, podman, services
from tests.trials.deploy.needs import needing
from tests.trials.deploy.on_systemd import saw, there
from tests.trials.deploy.talk import Talk, talking

MANIFEST: dict[str, Any] = next(
    yaml.safe_load_all((ROOT / "deploy/kubernetes/base/backup.yaml").read_text(encoding="utf-8"))
)
POD = MANIFEST["spec"]["jobTemplate"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
GROUP: int = POD["securityContext"]["fsGroup"]
BYTES = {"Mi": "m", "Gi": "g"}

machine_can = needing({name: name for name in ("podman", "runc", "debootstrap")}, as_root=True)


async def test_the_cron_job_makes_a_backup_of_what_runs(tmp_path: Path) -> None:
    await there(build)
    async with talking(tmp_path) as talk:
        with services(tmp_path, talk) as made:
            await there(made.start, "redis")
            await there(made.start, "worker")
            supervisor = await there(made.start, "supervisor")
            await talk.converse("hello")
            await runs_as_the_manifest_says(made, talk)
            found = json.loads(await there(doctor_in, supervisor.container))["findings"]
            [age] = [one for one in found if one["subject"] == "backup"]
            assert (age["verdict"], age["said"].split(",")[0]) == ("ok", "made 0.0 h ago"), age
            await talk.converse("said after the backup")


async def runs_as_the_manifest_says(made: Services, talk: Talk) -> None:
    identity = pyrage.x25519.Identity.generate()
    volumes = await there(make_volumes, made)
    for _ in range(2):
        said = await there(run_once, made, volumes, str(identity.to_public()))
    backups = sorted((made.folder / "volume-backups").glob("*.backup"))
    assert backups, said
    assert {(path.stat().st_mode & 0o777, path.stat().st_uid) for path in backups} == {(0o600, 10001)}
    assert list((made.folder / "volume-backups").glob(".*")) == []
    key = made.folder / "age.key"
    key.write_text(f"{identity}\n", encoding="utf-8")
    key.chmod(0o600)
    verified = await there(verify, backups[-1], key)
    assert "its signature fits" in verified
    assert talk.agent_id in verified
    saw("backup by the CronJob's container", backups=len(backups), bytes=backups[-1].stat().st_size)


def verify(backup: Path, key: Path) -> str:
    """What `backup verify` says of it, here."""
    done = subprocess.run(
        [str(ROOT / ".venv/bin/hashee-agent"), "backup", "verify", str(backup)],
        env={"HASHEE_BACKUP_IDENTITY_FILE": str(key), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def make_volumes(made: Services) -> dict[str, Path]:
    """As a kubelet makes them: root's, of the pod's group, which may write to them; the secret's files for the group to read."""
    made_of: dict[str, Path] = {}
    for volume in POD["volumes"]:
        place = made.folder / f"volume-{volume['name']}"
        place.mkdir()
        if "secret" in volume:
            url = made.environment["HASHEE_REDIS_URL"]
            (made.folder / "secrets" / "redis_url").write_text(url, encoding="utf-8")
            for source in (made.folder / "secrets").iterdir():
                copy = place / source.name
                copy.write_bytes(source.read_bytes())
                os.chown(copy, 0, GROUP)
                copy.chmod(volume["secret"]["defaultMode"])
        os.chown(place, 0, GROUP)
        place.chmod(0o2777 if "emptyDir" in volume else 0o2775)
        made_of[volume["name"]] = place
    return made_of


def run_once(made: Services, volumes: dict[str, Path], recipient: str) -> str:
    """One job, to its end; what it said."""
    user, limits = POD["securityContext"], CONTAINER["resources"]["limits"]
    security = CONTAINER["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    arguments = ["run", "--rm", "--network=host", *RUN_LIMITS, "--user", f"{user['runAsUser']}:{user['runAsGroup']}"]
    arguments += ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    number, unit = limits["memory"][:-2], limits["memory"][-2:]
    arguments += ["--memory", f"{number}{BYTES[unit]}", "--group-add", str(GROUP)]
    for mount in CONTAINER["volumeMounts"]:
        options = ":ro" if mount.get("readOnly") else ""
        arguments += ["--volume", f"{volumes[mount['name']]}:{mount['mountPath']}{options}"]
    given = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    config_map = {name: made.environment[name] for name in ("HASHEE_AGENT_ID", "HASHEE_BASE_URL")}
    for name, value in (config_map | given | {"HASHEE_BACKUP_RECIPIENTS": recipient}).items():
        arguments += ["--env", f"{name}={value}"]
    command = [*arguments, IMAGE, *CONTAINER["args"]]
    return podman(*command)


def doctor_in(container: str) -> str:
    return podman("exec", container, "sh", "-c", "hashee-agent doctor --json || true")
