"""`make systemd`: deploy/systemd under a real systemd, from the installation to the last process.

Not part of `make test`: it boots a machine. Each step says what it saw.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from sandbox.stage import free_port
from tests.trials.deploy.machine import PROGRAMS, SOURCE, Machine, booted_machine
from tests.trials.deploy.needs import needing
from tests.trials.deploy.talk import Talk, talking

INSTALL = f"{SOURCE}/deploy/systemd/install.sh"
UNIT = "hashee-agent.service"
SEED_LINES = (
    "[hashee] connection: connecting",
    "[hashee] connection: connected",
    "[hashee] up; waiting for messages...",
)
SLOW_ECHO = """
import os
from pathlib import Path

import trio
from workers import Agent

agent = Agent()


@agent.on_message()
async def answer(message, chat):
    Path(os.environ["STATE_DIRECTORY"], "last").write_text(message.text)
    await trio.sleep(3)
    await chat.reply(f"echo: {message.text}")
"""
Value = TypeVar("Value")

machine_can = needing(PROGRAMS, as_root=True)


def start(machine: Machine, *verb: str) -> float:
    """`systemctl VERB hashee-agent`, which returns when it is ready; how long that took. What went wrong is shown."""
    began = time.monotonic()
    try:
        done = machine.run("systemctl", *(verb or ("start",)), UNIT, check=False, seconds=60)
    except subprocess.TimeoutExpired:
        raise AssertionError("not ready within 60 s:\n" + "\n".join(machine.journal(UNIT)[-30:])) from None
    assert done.returncode == 0, done.stderr + "\n".join(machine.journal(UNIT)[-30:])
    return time.monotonic() - began


async def there(function: Callable[..., Value], *arguments: object) -> Value:
    """What blocks, while the person here goes on."""
    return await trio.to_thread.run_sync(function, *arguments)


def saw(step: str, **figures: object) -> None:
    """One line of the report."""
    told = ", ".join(f"{name} {value}" for name, value in figures.items())
    print(f"  {step}: {told}" if told else f"  {step}", flush=True)


async def test_the_service_from_its_installation_to_its_removal(tmp_path: Path) -> None:
    with booted_machine(tmp_path) as machine:
        async with talking(tmp_path) as talk:
            await is_installed(machine)
            await starts_and_answers(machine, talk)
            await restarts(machine, talk)
            await reloads(machine, talk)
            await comes_back_after_a_kill(machine, talk)
            await is_killed_when_wedged(machine, talk)
            await drains_when_stopped(machine, talk)
            await takes_its_secrets_from_credentials(machine, talk)
            await stays_down_with_wrong_settings(machine)
            await is_removed(machine)


async def test_two_slots_change_over_on_one_redis_with_a_worker_elsewhere(tmp_path: Path) -> None:
    """`hashee-agent@blue` and `@green`, and `hashee-agent-worker@1` with settings of its own."""
    with booted_machine(tmp_path) as machine:
        async with talking(tmp_path) as talk:
            await there(machine.run, INSTALL, "--python", "/usr/bin/python3")
            await has_a_redis_of_its_own(machine, talk)
            for unit in ("hashee-agent@blue", "hashee-agent-worker@1"):
                await there(machine.run, "systemctl", "start", unit)
            await talk.converse("to blue")
            began = time.monotonic()
            await there(machine.run, "systemctl", "start", "hashee-agent@green")
            await talk.say("while both run")
            await there(machine.run, "systemctl", "stop", "hashee-agent@blue")
            took = time.monotonic() - began
            answered = await talk.converse("to green")
            await there(machine.until, "green is well", lambda: is_well(machine, "green"))
            await there(machine.until, "blue's workers are off the list", lambda: workers_elsewhere(machine) == 1)
            for unit in ("hashee-agent@green", "hashee-agent-worker@1"):
                await there(machine.run, "systemctl", "stop", unit)
                assert await there(machine.show, unit, "Result") == "success"
            saw("blue to green", seconds=f"{took:.1f}", answered_after=f"{answered:.1f}", workers_elsewhere=1)


async def has_a_redis_of_its_own(machine: Machine, talk: Talk) -> None:
    port, store_key = free_port(), base64.b64encode(os.urandom(32)).decode()
    options = f"--port {port} --bind 127.0.0.1 --appendonly yes --maxmemory-policy noeviction --dir /tmp"
    machine.run("systemd-run", "--unit=redis-of-its-own", server_of(machine), *options.split())
    url = {"HASHEE_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    write_settings(machine, talk.settings | url | {"HASHEE_STORE_KEY": store_key})
    for slot in ("blue", "green"):
        write(machine, f"etc/hashee-agent/{slot}.env", f"HASHEE_HTTP_PORT={free_port()}\n", 0o600)
    said = (await there(machine.run, "hashee-agent", "keys", "bus")).stdout
    worker = url | {"HASHEE_AGENT_ID": talk.agent_id}
    lines = [*(f"{name}={value}" for name, value in worker.items()), said.strip()]
    write(machine, "etc/hashee-agent/worker.env", "\n".join(lines) + "\n", 0o600)


def server_of(machine: Machine) -> str:
    """The program that the installation there would start."""
    asked = "from host.embedded import find_server; print(find_server().path)"
    return machine.run("/opt/hashee-agent/venv/bin/python", "-P", "-c", asked).stdout.strip()


def is_well(machine: Machine, slot: str) -> bool:
    return machine.run("hashee-agent", "--slot", slot, "healthcheck", check=False).returncode == 0


def workers_elsewhere(machine: Machine) -> int:
    """As green knows it, which looks every two seconds."""
    status = json.loads(machine.run("hashee-agent", "--slot", "green", "status", "--json").stdout)
    return len(status["supervisor"]["workers_elsewhere"])


async def is_installed(machine: Machine) -> None:
    first = await there(machine.run, INSTALL, "--python", "/usr/bin/python3")
    assert "installed   /etc/systemd/system/hashee-agent.service" in first.stdout
    made = (
        "hashee-agent keys generate >>/etc/hashee-agent/env; grep -c '^HASHEE_.*PRIVATE_BASE64=.' /etc/hashee-agent/env"
    )
    assert (await there(machine.run, "sh", "-c", made)).stdout == "2\n"
    write(machine, "etc/hashee-agent/env", "# the owner's own\n")
    again = await there(machine.run, INSTALL)
    assert "installed   /etc" not in again.stdout
    assert "kept        /etc/hashee-agent/env" in again.stdout
    assert mode_and_owner(machine, "/etc/hashee-agent/env") == "600 root hashee"
    saw("installed, and installed again without a change")


async def starts_and_answers(machine: Machine, talk: Talk) -> None:
    write_settings(machine, talk.settings | {"HASHEE_HANDLER": "slow_echo:agent"})
    write(machine, "opt/hashee-agent/app/slow_echo.py", SLOW_ECHO)
    assert (await there(machine.run, "hashee-agent", "check-settings")).returncode == 0
    started = await there(start, machine, "enable", "--now")
    answered = await talk.converse("hello")
    lines = await there(machine.journal, UNIT)
    places = [next(n for n, line in enumerate(lines) if line.startswith(wanted)) for wanted in SEED_LINES]
    assert places == sorted(places)
    assert await there(machine.show, UNIT, "User") == "hashee"
    assert not any(secret in "\n".join(lines) for secret in secrets_of(talk))
    saw(
        "started",
        seconds=f"{started:.1f}",
        answered_after=f"{answered:.1f}",
        processes=len(await there(processes_of, machine)),
        memory_mib=await there(memory_mib, machine),
        status=await there(machine.show, UNIT, "StatusText"),
    )


async def restarts(machine: Machine, talk: Talk) -> None:
    await talk.say("said before the restart")
    without = await talk.connectionless_ms()
    took = await there(start, machine, "restart")
    answered = await talk.converse("said after the restart")
    without = await talk.connectionless_ms() - without
    saw("restarted", seconds=f"{took:.1f}", answered_after=f"{answered:.1f}", connectionless_ms=without)


async def reloads(machine: Machine, talk: Talk) -> None:
    """A new generation takes over under the same main process."""
    before = await there(main_pid, machine)
    await talk.say("said before the reload")
    without = await talk.connectionless_ms()
    took = await there(start, machine, "reload")
    answered = await talk.converse("said after the reload")
    assert await there(main_pid, machine) == before
    assert await talk.connectionless_ms() == without, "the new generation is connected before the old one leaves"
    saw("reloaded", seconds=f"{took:.1f}", answered_after=f"{answered:.1f}", connectionless_ms=0)


async def comes_back_after_a_kill(machine: Machine, talk: Talk) -> None:
    before = await there(main_pid, machine)
    await talk.say("said before the kill")
    without = await talk.connectionless_ms()
    await there(machine.run, "kill", "-KILL", str(before))
    took = await there(machine.until, "another main process", lambda: main_pid(machine) not in (0, before))
    answered = await talk.converse("said after the kill")
    without = await talk.connectionless_ms() - without
    saw("killed", another_after=f"{took:.1f}", answered_after=f"{answered:.1f}", connectionless_ms=without)


async def is_killed_when_wedged(machine: Machine, talk: Talk) -> None:
    drop_in(machine, "watchdog", "[Service]\nWatchdogSec=3\n")
    await there(start, machine, "restart")
    wedged = await there(main_pid, machine)
    await trio.sleep(9)  # three times the watchdog's patience: it is fed
    assert await there(main_pid, machine) == wedged
    await there(machine.run, "kill", "-STOP", str(wedged))
    took = await there(machine.until, "another main process", lambda: main_pid(machine) not in (0, wedged))
    lines = await there(machine.journal, UNIT)
    assert any("Watchdog timeout" in line for line in lines), lines[-20:]
    answered = await talk.converse("said after the watchdog")
    await there(machine.run, "rm", "-r", f"/etc/systemd/system/{UNIT}.d")
    await there(machine.run, "systemctl", "daemon-reload")
    saw("wedged", another_after=f"{took:.1f}", answered_after=f"{answered:.1f}")


async def drains_when_stopped(machine: Machine, talk: Talk) -> None:
    """What runs is finished and sent before the end; then nothing of it is left."""
    await there(start, machine, "restart")  # with the watchdog as it is shipped
    await talk.say("said just before the stop")
    await there(machine.until, "the handler runs", partial(is_working_on, machine, "said just before the stop"))
    began = time.monotonic()
    await there(machine.run, "systemctl", "stop", UNIT)
    took = time.monotonic() - began
    assert took < 45
    assert await there(machine.show, UNIT, "Result") == "success"
    await talk.until_answered()
    assert await there(processes_of, machine) == []
    saw("stopped", seconds=f"{took:.1f}")


async def takes_its_secrets_from_credentials(machine: Machine, talk: Talk) -> None:
    names = {
        "HASHEE_AGENT_TOKEN": "agent_token",
        "HASHEE_X25519_PRIVATE_BASE64": "x25519_private_base64",
        "HASHEE_ED25519_PRIVATE_BASE64": "ed25519_private_base64",
    }
    for name, file in names.items():
        write(machine, f"etc/hashee-agent/credentials/{file}", talk.settings[name] + "\n", 0o600)
    write_settings(machine, {name: value for name, value in talk.settings.items() if name not in names})
    text = (Path(__file__).parents[3] / "deploy/systemd/credentials.conf").read_text(encoding="utf-8")
    drop_in(machine, "credentials", text)
    assert (await there(machine.run, "hashee-agent", "check-settings")).returncode == 0
    await there(start, machine)
    environments = (await there(machine.run, "sh", "-c", "cat /proc/[0-9]*/environ")).stdout
    assert not any(secret in environments for secret in secrets_of(talk))
    await talk.converse("with credentials")
    await there(machine.run, "systemctl", "stop", UNIT)
    saw("with credentials", secrets_in_environments=0)


async def stays_down_with_wrong_settings(machine: Machine) -> None:
    write(machine, "etc/hashee-agent/env", "HASHEE_AGENT_ID=not-an-id\n", 0o600)
    failed = await there(partial(machine.run, "systemctl", "start", UNIT, check=False))
    assert failed.returncode != 0
    await trio.sleep(6)  # longer than RestartSec
    assert await there(machine.show, UNIT, "ExecMainStatus") == "78"
    assert await there(machine.show, UNIT, "ActiveState") == "failed"
    said = [line for line in await there(machine.journal, UNIT) if line.startswith("hashee-agent: HASHEE_AGENT_ID")]
    assert len(said) == 1
    saw("wrong settings", said=json.dumps(said[0]))


async def is_removed(machine: Machine) -> None:
    kept = await there(machine.run, INSTALL, "--uninstall")
    assert "kept        /etc/hashee-agent" in kept.stdout
    assert (machine.run("systemctl", "cat", UNIT, check=False)).returncode != 0
    await there(machine.run, INSTALL, "--uninstall", "--purge")
    left = await there(machine.run, "sh", "-c", "ls -d /etc/hashee* /opt/hashee* /var/lib/hashee* || true")
    assert left.stdout == ""
    assert machine.run("getent", "passwd", "hashee", check=False).returncode != 0
    saw("removed", left="nothing")


def write(machine: Machine, path: str, text: str, mode: int = 0o644) -> None:
    """By the machine itself: its overlay must see it."""
    machine.run(
        "sh",
        "-c",
        'mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"; chmod "$3" "$1"',
        "-",
        f"/{path}",
        text,
        f"{mode:o}",
    )


def write_settings(machine: Machine, settings: dict[str, str]) -> None:
    write(machine, "etc/hashee-agent/env", "".join(f"{name}={value}\n" for name, value in settings.items()), 0o600)


def drop_in(machine: Machine, name: str, text: str, unit: str = UNIT) -> None:
    write(machine, f"etc/systemd/system/{unit}.d/{name}.conf", text)
    machine.run("systemctl", "daemon-reload")


def mode_and_owner(machine: Machine, path: str) -> str:
    return machine.run("stat", "-c", "%a %U %G", path).stdout.strip()


def main_pid(machine: Machine) -> int:
    return int(machine.show(UNIT, "MainPID"))


def is_working_on(machine: Machine, text: str) -> bool:
    """The handler has written down which message it works on."""
    return text in machine.run("cat", "/var/lib/hashee-agent/last", check=False).stdout


def processes_of(machine: Machine) -> list[int]:
    """Every process of the user hashee."""
    return [int(pid) for pid in machine.run("pgrep", "-u", "hashee", check=False).stdout.split()]


def memory_mib(machine: Machine) -> int:
    """What they hold together, pages that they share counted once."""
    lines = machine.run("sh", "-c", "cat $(pgrep -u hashee | sed 's:.*:/proc/&/smaps_rollup:')").stdout.splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) >> 10


def secrets_of(talk: Talk) -> list[str]:
    return [
        talk.settings[f"HASHEE_{name}"] for name in ("AGENT_TOKEN", "X25519_PRIVATE_BASE64", "ED25519_PRIVATE_BASE64")
    ]
