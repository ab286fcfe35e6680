"""Part of `make systemd`: the shipped timer fires, its service makes a backup beside the running agent, and that one opens elsewhere.

Not part of `make test`: it boots a machine.
"""

import json
from functools import partial
from pathlib import Path

import pyrage  # type: ignore[import-untyped]

from tests.trials.deploy.machine import PROGRAMS, Machine, booted_machine
from tests.trials.deploy.needs import needing
from tests.trials.deploy.on_systemd import (
    INSTALL,
    UNIT,
    drop_in,
    mode_and_owner,
    saw,
    start,
    there,
    write,
    write_settings,
)
from tests.trials.deploy.talk import talking

SERVICE, TIMER = "hashee-agent-backup.service", "hashee-agent-backup.timer"
FOLDER = "/var/lib/hashee-agent-backups"
PROGRAM = "/opt/hashee-agent/venv/bin/hashee-agent"
OFTEN = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nRandomizedDelaySec=0\nAccuracySec=100ms\nPersistent=false\n"

machine_can = needing(PROGRAMS, as_root=True)


async def test_the_timer_makes_a_backup_that_opens_elsewhere_and_the_doctor_knows_its_age(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    with booted_machine(tmp_path) as machine:
        async with talking(tmp_path) as talk:
            await there(machine.run, INSTALL, "--python", "/usr/bin/python3")
            sealed_to = {"HASHEE_BACKUP_RECIPIENTS": str(identity.to_public())}
            await there(write_settings, machine, talk.settings | sealed_to)
            refused = await there(partial(machine.run, "systemctl", "start", SERVICE, check=False))
            assert refused.returncode != 0, "while the agent is down none is made"
            await there(start, machine, "enable", "--now")
            await talk.converse("hello")
            verdict, found = (await there(backup_findings, machine))["age"]
            assert (verdict, found.partition(", and it may")[0]) == ("warn", "none of this store is known")

            await there(drop_in, machine, "often", OFTEN, TIMER)
            await there(machine.run, "systemctl", "enable", "--now", TIMER)
            took = await there(machine.until, "the timer has fired", lambda: backups_in(machine))
            await there(machine.run, "systemctl", "stop", TIMER)
            await there(machine.until, "it has ended", lambda: machine.show(SERVICE, "ActiveState") == "inactive")
            assert await there(machine.show, SERVICE, "Result") == "success"
            assert await there(mode_and_owner, machine, FOLDER) == "700 hashee hashee"
            backups = await there(backups_in, machine)
            for path in backups:
                assert await there(mode_and_owner, machine, path) == "600 hashee hashee"
            said = "\n".join(await there(machine.journal, SERVICE))
            fingerprint = said.split("signed by ")[1].split(";")[0]
            await there(write, machine, "etc/hashee-agent/age.key", f"{identity}\n", 0o600)
            opened = await there(
                machine.run,
                *("env", "-i", "HASHEE_BACKUP_IDENTITY_FILE=/etc/hashee-agent/age.key", PROGRAM),
                *("backup", "verify", backups[-1], "--fingerprint", fingerprint),
            )
            assert "its signature fits" in opened.stdout
            findings = await there(backup_findings, machine)
            verdict, found = findings["age"]
            assert (verdict, found.split(",")[0], backups[-1] in found) == ("ok", "made 0.0 h ago", True)
            assert findings["recipients"][0] == "ok"
            status = json.loads((await there(machine.run, "hashee-agent", "status", "--json")).stdout)
            assert status["supervisor"]["last_backup"]["place"] == backups[-1]
            await talk.converse("said after the backup")
            saw("backup by the timer", fired_after=f"{took:.1f}", backups=len(backups), doctor=found)
            await there(machine.run, "systemctl", "stop", UNIT)


def backups_in(machine: Machine) -> list[str]:
    """Those that have their names, the oldest first."""
    return machine.run("sh", "-c", f"ls -d {FOLDER}/*.backup 2>/dev/null || true").stdout.split()


def backup_findings(machine: Machine) -> dict[str, tuple[str, str]]:
    """What the doctor finds of the last one: verdict and words, by what it looked at."""
    told = json.loads(machine.run("hashee-agent", "doctor", "--json", check=False).stdout)
    of_it = [one for one in told["findings"] if one["subject"] == "backup"]
    return {one["name"]: (one["verdict"], one["said"]) for one in of_it}
