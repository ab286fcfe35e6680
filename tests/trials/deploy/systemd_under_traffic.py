"""`make systemd`: reload, restart and a kill of the real service while many people talk, counted as every rollout is.

The traffic, the handler and the counting are those of tests/trials/rollout; here is only how a real systemd changes versions.
Not part of `make test`: it boots a machine. For each change it prints one line of JSON.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from sandbox.stage import free_port
from tests.trials.deploy.machine import PROGRAMS, SOURCE, Machine, booted_machine
from tests.trials.deploy.needs import needing
from tests.trials.deploy.on_systemd import INSTALL, SEED_LINES, UNIT, main_pid, saw, start, there, write_settings
from tests.trials.rollout.promises import what_is_bad
from tests.trials.rollout.release import Releases
from tests.trials.rollout.run import Order, Outcome, run_with
from tests.trials.rollout.scene import Scene
from tests.trials.rollout.strategies import SLOTS
from tests.waiting import waiting_for

CODE = "opt/hashee-agent/app"
STATE = "var/lib/hashee-agent"
LOADED = f"{STATE}/loaded.log"
HANDLERS_NEED = "tests/__init__.py tests/trials/chaos/__init__.py tests/trials/chaos/script.py tests/trials/rollout"
BACK_SECONDS = 60.0
POLL_SECONDS = 0.2
"""Each look starts a process there, on the cores that the traffic is measured on."""

TRAFFIC = Order(strategy="", messages=600, people=200, rate=40.0, rollouts=1, trouble="", seed=1)
TOO_LONG_SECONDS = 240.0

machine_can = needing(PROGRAMS, as_root=True)


async def reload(machine: Machine) -> None:
    before = await there(main_pid, machine)
    await there(start, machine, "reload")
    assert await there(main_pid, machine) == before


async def restart(machine: Machine) -> None:
    await there(start, machine, "restart")


async def kill(machine: Machine) -> None:
    """SIGKILL of the main process alone; systemd ends what it leaves and starts it again."""
    before = await there(main_pid, machine)
    await there(machine.run, "kill", "-KILL", str(before))
    with waiting_for("the agent to serve again", BACK_SECONDS):
        while not await there(_serves_again, machine, before):
            await trio.sleep(POLL_SECONDS)


def _serves_again(machine: Machine, before: int) -> bool:
    return main_pid(machine) not in (0, before) and machine.show(UNIT, "ActiveState") == "active"


class RealSystemd:
    """`hashee-agent.service` as it is shipped, in a machine where it is installed; `change` is what `roll` does to it."""

    given_redis = False

    def __init__(self, machine: Machine, change: Callable[[Machine], Awaitable[None]]) -> None:
        self._machine = machine
        self._change = change
        self._journal_until_change = 0

    async def begin(self, scene: Scene) -> None:
        await there(self._machine.run, "rm", "-rf", f"/{STATE}")
        settings = scene.environment(HASHEE_HTTP_PORT=str(free_port()), **SLOTS)
        await there(write_settings, self._machine, {n: v for n, v in settings.items() if n.startswith("HASHEE_")})
        scene.stack.push_async_callback(there, self._machine.run, "systemctl", "stop", UNIT)
        await there(start, self._machine)

    async def roll(self, _scene: Scene) -> bool:
        self._journal_until_change = len(await there(self._machine.journal, UNIT))
        await self._change(self._machine)
        return True

    def leaving(self) -> list[int]:
        """Nothing is killed in its drain here."""
        return []

    def journal_since_change(self) -> list[str]:
        return self._machine.journal(UNIT)[self._journal_until_change :]


CHANGES = {"reload": reload, "restart": restart, "kill -9": kill}


async def test_nobody_notices_a_reload_and_neither_restart_nor_kill_loses_a_message(tmp_path: Path) -> None:
    with booted_machine(tmp_path) as machine:
        await there(is_installed, machine)
        bad = {change: await under_traffic(machine, change, folder_for(change, tmp_path)) for change in CHANGES}
        assert bad == {change: [] for change in CHANGES}


def is_installed(machine: Machine) -> None:
    machine.run(INSTALL, "--python", "/usr/bin/python3")
    machine.run("sh", "-c", f"cd {SOURCE} && cp -r --parents {HANDLERS_NEED} /{CODE}")


def folder_for(change: str, folder: Path) -> Path:
    (folder / change).mkdir()
    return folder / change


async def under_traffic(machine: Machine, change: str, directory: Path) -> list[str]:
    """Prints the figures; returns what was not as promised. Only of a reload is it promised that replies go on."""
    order = TRAFFIC if change == "reload" else msgspec.structs.replace(TRAFFIC, trouble=change)
    releases = Releases(machine.root / CODE, machine.root / LOADED, Path("/", LOADED))
    strategy = RealSystemd(machine, CHANGES[change])
    with waiting_for(f"the run with {change}", TOO_LONG_SECONDS):
        outcome = await run_with(strategy, releases, order, directory)
    show(change, outcome)
    since = await there(strategy.journal_since_change)
    bad = [*what_is_bad(outcome, order), *wrong_in_journal(since)]
    if bad:
        saw("\n".join(since))  # also what was quarantined, and came behind what was said later
    return bad


def show(change: str, outcome: Outcome) -> None:
    """`seconds`: from the command, or the kill, until systemd says that it is done."""
    line = {"change": change} | msgspec.structs.asdict(outcome.figures)
    line["seconds"] = line.pop("rollout_seconds")
    print(msgspec.json.encode(line).decode())
    saw("; ".join(outcome.notes))


def wrong_in_journal(lines: list[str]) -> list[str]:
    """The new supervisor says how it came up, once and in this order."""
    said = [seed for line in lines for seed in SEED_LINES if line.startswith(seed)]
    tracebacks = sum("Traceback" in line for line in lines)
    return [
        *([f"instead of the three lines: {said}"] if said != list(SEED_LINES) else []),
        *([f"{tracebacks} tracebacks in the journal"] if tracebacks else []),
    ]
