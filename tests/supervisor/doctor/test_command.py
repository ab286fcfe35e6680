"""`hashee-agent doctor` as a process: beside a running agent and without one, for people and as JSON, and its exit status."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import trio

from supervisor.cli import COMMANDS, cli
from supervisor.settings.table import ALL_SETTINGS
from tests.commands import run_command
from tests.supervisor.settings.environment import process_environ
from tests.world import World, world

ROOT = Path(__file__).parents[3]
RELAY = "http://127.0.0.1:1"


def run(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """JSON is the same bytes in a locale that is not UTF-8."""
    locale = "gbk" if "--json" in arguments else "utf-8"
    return run_command("doctor", *arguments, environ={**environ, "PYTHONIOENCODING": locale})


def verdicts_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    report = json.loads(done.stdout)
    return {f"{one['subject']}: {one['name']}": one["verdict"] for one in report["findings"]}


def files_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (one.st_mode, one.st_size, one.st_mtime_ns) for name, one in found.items()}


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    return [environ[setting.name] for setting in ALL_SETTINGS if setting.secret and setting.name in environ]


async def checked(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = await trio.to_thread.run_sync(lambda: run(world.environment, *arguments))
    assert not any(secret in done.stdout + done.stderr for secret in secrets_of(world.environment))
    assert done.stderr == ""
    return done


async def test_beside_a_running_agent_all_is_well_and_after_its_end_what_cannot_be_known_is_unknown(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as running:
        done = await checked(running, "--json")
        assert done.returncode == 0, done.stdout
        found = verdicts_of(done)
        assert {name for name, verdict in found.items() if verdict in ("bad", "unknown")} == set(), done.stdout
        assert {
            "relay: token", "clock: relay", "clock: Redis", "redis: fit", "files: store secret", "agent: check relay",
            "descriptors: supervisor", "limits: memory", "versions: workers", "agent: signed prekey",
            "agent: witness"
        } <= set(found)  # fmt: skip
        searched = await checked(running, "--leak-test", "--json")
        assert searched.returncode == 0, searched.stdout
        leaks = verdicts_of(searched)
        assert leaks == dict.fromkeys(
            ("leaks: canary", "leaks: files", "leaks: processes", "leaks: logs", "leaks: Redis"), "ok"
        )
    before = files_of(running.state_dir)
    done = await checked(running)
    assert files_of(running.state_dir) == before
    assert "unknown agent: running " in done.stdout
    assert "unknown redis: reached " in done.stdout
    assert done.stdout.startswith("bad     relay: way ")  # the relay of this world is gone too
    assert done.returncode == 1


def test_settings_that_cannot_be_read_end_with_78_and_everything_else_is_looked_at(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    done = run(process_environ(state_dir, HASHEE_BASE_URL=RELAY, HASHEE_WORKERS="many"), "--json")
    assert done.returncode == 78
    found = verdicts_of(done)
    assert found["settings: readable"] == found["files: state directory"] == found["relay: way"] == "bad"
    assert found["disk: state directory"] == "ok"


def test_an_env_file_that_others_can_read_is_a_finding_and_no_end(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("HASHEE_WORKERS=1\n", encoding="utf-8")
    path.chmod(0o644)
    done = run(process_environ(tmp_path / "state", HASHEE_BASE_URL=RELAY), "--env-file", str(path))
    assert done.returncode == 78
    assert f"{path} can be read by others than its owner: chmod 600 {path}" in done.stdout
    assert "disk: state directory" in done.stdout


def test_no_settings_at_all_are_told_like_any_others(tmp_path: Path) -> None:
    done = run({"PATH": process_environ(tmp_path)["PATH"], "HASHEE_BASE_URL": RELAY})
    assert done.returncode == 78
    assert "HASHEE_AGENT_ID is not set" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    hashee-agent doctor([^#\n]*)", page, re.MULTILINE)
    assert len(commands) >= 2
    for arguments in commands:
        assert run(process_environ(tmp_path / "state", HASHEE_BASE_URL=RELAY), *arguments.split()).returncode in (0, 1)


def test_every_command_that_is_said_to_help_is_there() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "supervisor" / "doctor").glob("*.py"))
    named = set(re.findall(r"hashee-agent ([a-z-]+(?: [a-z-]+)?)", sources))
    commands = {name for name in named if name.split()[0] in COMMANDS}
    assert len(commands) > 5
    for command in sorted(commands):
        cli.main([*command.split(), "--help"], standalone_mode=False)
