"""What the units for systemd must say. That they work is tried by `make systemd` (on_systemd.py, systemd_under_traffic.py)."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.keeper.keeper import Timings
from supervisor.settings.table import DRAIN_SECONDS

pytestmark = pytest.mark.pure

FOLDER = Path(__file__).parents[3] / "deploy/systemd"
UNITS = sorted(FOLDER.glob("*.service"))
SERVICES = [path for path in UNITS if "backup" not in path.name]
MAIN = [path for path in SERVICES if "worker" not in path.name and "files" not in path.name]
HARDENING_BEGINS = "# What it may touch"
HIGHEST_EXPOSURE = 1.5


def settings(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def hardening(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition(HARDENING_BEGINS)[2].partition("[Install]")[0].strip()


def test_there_are_the_four_units_and_the_backup() -> None:
    assert [path.name for path in UNITS] == [
        "hashee-agent-backup.service",
        "hashee-agent-files.service",
        "hashee-agent-worker@.service",
        "hashee-agent.service",
        "hashee-agent@.service",
    ]


def test_all_units_are_hardened_alike() -> None:
    assert len({hardening(path) for path in UNITS}) == 1
    assert "CapabilityBoundingSet=\n" in hardening(UNITS[0])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.name))
def test_a_unit_exposes_little(path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    done = subprocess.run(
        [program, "security", "--offline=true", path], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    found = re.search(r"Overall exposure level for .*?: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze cannot judge a file: {done.stderr.strip()}")
    assert float(found[1]) <= HIGHEST_EXPOSURE


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: str(path.name))
def test_a_unit_has_the_limits_and_the_user_of_the_platforms_recipe(path: Path) -> None:
    unit = settings(path)
    expected = {"MemoryMax": "512M", "CPUQuota": "100%", "TasksMax": "400", "User": "hashee", "Group": "hashee"}
    assert {name: unit[name] for name in expected} == {name: [value] for name, value in expected.items()}
    assert unit["RestartPreventExitStatus"] == ["78"]
    assert unit["KillMode"] == ["mixed"]


@pytest.mark.parametrize("path", MAIN, ids=lambda path: str(path.name))
def test_systemd_waits_longer_than_the_drain_and_the_end_of_redis(path: Path) -> None:
    timings = Timings()
    longest = float(DRAIN_SECONDS.default or 0) + timings.drain_margin + timings.redis_stop
    assert float(settings(path)["TimeoutStopSec"][0]) > longest + 10


@pytest.mark.parametrize("path", MAIN, ids=lambda path: str(path.name))
def test_the_main_process_is_watched_and_reloads_by_an_upgrade(path: Path) -> None:
    unit = settings(path)
    assert unit["Type"] == ["notify"]
    assert int(unit["WatchdogSec"][0]) >= 10
    assert unit["ExecReload"][0].endswith("hashee-agent upgrade --wait")


def test_the_nightly_backup_is_of_the_service_and_harms_it_in_no_way() -> None:
    unit, timer = settings(FOLDER / "hashee-agent-backup.service"), settings(FOLDER / "hashee-agent-backup.timer")
    main = settings(FOLDER / "hashee-agent.service")
    assert {name: unit[name] for name in ("User", "Group", "EnvironmentFile", "MemoryMax", "TasksMax")} == {
        name: main[name] for name in ("User", "Group", "EnvironmentFile", "MemoryMax", "TasksMax")
    }
    # One that held the state directory while the agent starts would end that start with 78, which systemd does not repeat.
    assert unit["Requisite"] == ["hashee-agent.service"]
    assert unit["Environment"] == [f"HASHEE_STATE_DIR=/var/lib/{main['StateDirectory'][0]}"]
    assert unit["ReadWritePaths"] == [f"/var/lib/{main['StateDirectory'][0]}"]
    assert unit["ExecStart"] == [
        f"/opt/hashee-agent/venv/bin/hashee-agent backup --keep 14 /var/lib/{unit['StateDirectory'][0]}"
    ]
    assert unit["Type"] == ["oneshot"]
    assert "Restart" not in unit
    assert (timer["OnCalendar"], timer["Persistent"]) == (["*-*-* 03:00:00"], ["true"])


def test_the_scripts_are_well_formed() -> None:
    bash = shutil.which("bash") or "bash"
    for name in ("install.sh", "hashee-agent.sh"):
        subprocess.run([bash, "-n", FOLDER / name], check=True)


def test_the_help_is_shown_wherever_the_script_is_called_from(tmp_path: Path) -> None:
    for here, script in (
        (FOLDER, "./install.sh"),
        (FOLDER.parent, "systemd/install.sh"),
        (tmp_path, FOLDER / "install.sh"),
    ):
        done = subprocess.run(
            ["/bin/bash", script, "--help"], cwd=here, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "install.sh --uninstall" in done.stdout


def test_every_file_that_the_installation_names_is_there() -> None:
    text = (FOLDER / "install.sh").read_text(encoding="utf-8")
    named = set(
        re.findall(r"hashee-agent[\w@-]*\.(?:service|timer|sysusers\.conf|tmpfiles\.conf|sh)\b|env\.example", text)
    )
    assert named
    assert all((FOLDER / name).exists() for name in named)
