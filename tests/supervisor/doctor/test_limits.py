"""What the deployment allows: descriptors, the time to stop, memory; and which versions run beside each other."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from bus.records.keys import Keys
from bus.records.presence import Presence
from bus.steps.slots import Holder
from supervisor.doctor.descriptors import look_at_descriptors
from supervisor.doctor.limits import look_at_limits, span_seconds, unit_of
from supervisor.doctor.versions import look_at_versions
from tests.redis_server import running_redis
from tests.supervisor.doctor.builders import case_of, named
from tests.supervisor.settings.environment import AGENT_ID, STORE_KEY

MIB = 1 << 20
PID = 4321
SERVICE = "0::/system.slice/hashee-agent.service\n"


def status(**more: Any) -> dict[str, Any]:
    return {"supervisor": {"pid": PID, **more}}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """/proc of a machine of 8 GiB, with a supervisor in a service."""
    process = tmp_path / "proc" / str(PID)
    (process / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  8388608 kB\n", encoding="ascii")
    (process / "cmdline").write_bytes(b"hashee-agent: supervisor\0")
    (process / "cgroup").write_text(SERVICE, encoding="ascii")
    (process / "limits").write_text(
        "Limit  Soft Limit  Hard Limit  Units\nMax open files            10   20   files\n", "ascii"
    )
    return tmp_path / "proc"


@pytest.mark.pure
@pytest.mark.parametrize(("used", "verdict"), [(3, "ok"), (8, "warn"), (9, "bad")])
def test_descriptors_that_run_out(tmp_path: Path, proc: Path, used: int, verdict: str) -> None:
    for number in range(used):
        (proc / str(PID) / "fd" / str(number)).touch()
    finding = named(look_at_descriptors(case_of(tmp_path, status()), proc))["descriptors: supervisor"]
    assert (finding.verdict, finding.said) == (verdict, f"{used} of 10 are open")


@pytest.mark.pure
def test_a_process_that_only_has_the_same_number_here_is_not_looked_at(tmp_path: Path, proc: Path) -> None:
    (proc / str(PID) / "cmdline").write_bytes(b"somebody else\0")
    for case in (case_of(tmp_path, status()), case_of(tmp_path)):
        assert named(look_at_descriptors(case, proc))["descriptors: supervisor"].verdict == "unknown"


@pytest.mark.parametrize(("given", "verdict"), [("1min", "ok"), ("50s", "warn"), ("10s", "bad"), ("infinity", "ok")])
def test_a_service_that_is_killed_before_its_drain_ends(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch, given: str, verdict: str
) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked; echo {given}\n', encoding="ascii")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    finding = named(look_at_limits(case_of(tmp_path, status()), proc, tmp_path))["limits: time to stop"]
    assert finding.verdict == verdict
    assert "a stop may take 50 s" in finding.said
    asked = (tmp_path / "asked").read_text(encoding="ascii").strip()
    assert asked == "show --property=TimeoutStopUSec --value hashee-agent.service"


@pytest.mark.pure
def test_where_no_service_is_seen_the_number_is_told(tmp_path: Path, proc: Path) -> None:
    (proc / str(PID) / "cgroup").write_text("0::/\n", encoding="ascii")
    case = case_of(tmp_path, status(), HASHEE_DRAIN_SECONDS="100")
    finding = named(look_at_limits(case, proc, tmp_path))["limits: time to stop"]
    assert finding.verdict == "ok"
    assert "a stop may take 155 s; terminationGracePeriodSeconds, stop_grace_period" in finding.said


@pytest.mark.pure
@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/hashee-agent@blue.service\n", ("hashee-agent@blue.service",)),
        ("5:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", ("a.service",)),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/a.service\n", ("--user", "a.service")),
        ("0::/user.slice/user-1.slice/user@1.service\n", None),
        ("0::/user.slice/user-1.slice/session-2.scope\n", None),
        ("4:memory:/system.slice/docker.service\n", None),
    ],
)
def test_which_service_a_process_belongs_to(tmp_path: Path, text: str, unit: tuple[str, ...] | None) -> None:
    (tmp_path / str(PID)).mkdir()
    (tmp_path / str(PID) / "cgroup").write_text(text, encoding="ascii")
    assert unit_of(PID, tmp_path) == unit


@pytest.mark.pure
def test_times_as_systemd_writes_them() -> None:
    assert (span_seconds("1min 30s"), span_seconds("2h 500ms"), span_seconds("1d")) == (90, 7200.5, 86_400)
    assert (span_seconds(""), span_seconds("soon"), span_seconds("5 s")) == (None, None, None)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("limit_mib", "environ", "verdict"),
    [
        (512, {}, "ok"),
        (256, {}, "ok"),
        (220, {}, "ok"),
        (205, {}, "warn"),
        (190, {}, "bad"),
        (205, {"HASHEE_WORKERS": "1"}, "ok"),
        (512, {"HASHEE_WORKERS": "4:8"}, "ok"),
        (512, {"HASHEE_WORKERS": "10"}, "bad"),
        (512, {"HASHEE_REDIS_MEMORY": "250"}, "warn"),
        (512, {"HASHEE_REDIS_MEMORY": "400"}, "bad"),
        (512, {"HASHEE_MEMORY": "1024"}, "bad"),
        (512, {"HASHEE_REDIS_URL": "redis://h", "HASHEE_STORE_KEY": STORE_KEY, "HASHEE_REDIS_MEMORY": "400"}, "ok"),
    ],
)
@pytest.mark.parametrize("kernel", ["v1", "v2"])
def test_memory_that_does_not_suffice_for_what_was_promised(
    proc: Path, kernel: str, limit_mib: int, environ: dict[str, str], verdict: str
) -> None:
    tmp_path = proc.parent
    file = tmp_path / ("memory/agent/memory.limit_in_bytes" if kernel == "v1" else "agent/memory.max")
    file.parent.mkdir(parents=True)
    file.write_text(f"{limit_mib * MIB}\n", encoding="ascii")
    (proc / str(PID) / "cgroup").write_text("4:memory:/agent\n" if kernel == "v1" else "0::/agent\n", encoding="ascii")
    case = case_of(tmp_path, status(), **environ)
    assert named(look_at_limits(case, proc, tmp_path))["limits: memory"].verdict == verdict


@pytest.mark.pure
def test_a_file_gate_that_runs_counts_with_the_processes(proc: Path) -> None:
    file = proc.parent / "agent/memory.max"
    file.parent.mkdir(parents=True)
    file.write_text(f"{256 * MIB}\n", encoding="ascii")
    (proc / str(PID) / "cgroup").write_text("0::/agent\n", encoding="ascii")
    for pid, verdict in ((0, "ok"), (7, "warn")):
        keeper = {"files": {"url": "unix:///files.sock", "pid": pid, "deaths": 0}}
        case = case_of(proc.parent, {**status(), "keeper": keeper})
        finding = named(look_at_limits(case, proc, proc.parent))["limits: memory"]
        assert (finding.verdict, "the file gate 40" in finding.said) == (verdict, pid > 0)


def presence(name: str, version: str) -> str:
    return json.dumps(
        {
            **dict.fromkeys(Presence.__struct_fields__, 0),
            **{"consumer": name, "host": "h", "version": version, "handler": "", "code": "", "loop_lag_ms": 0.0},
        }
    )


def test_versions_beside_each_other_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.doctor.versions.version", lambda _: "2.0")
    keys = Keys(AGENT_ID)
    with running_redis(tmp_path) as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        case = case_of(tmp_path, status(version="2.0"), HASHEE_REDIS_URL=server.url, HASHEE_STORE_KEY=STORE_KEY)
        alone = named(look_at_versions(case))
        for name, version in (("new", "2.0"), ("old", "1.0")):
            client.zadd(keys.consumers, {name: 1})
            client.set(keys.presence(name), presence(name, version))
        client.set(keys.slot(1), "holder")
        for number, holder in enumerate(("holder", "gone")):
            version = "2.0" if holder == "holder" else "1.0"
            record = Holder(holder=holder, host="", version=version, since_ms=0, connected=True)
            client.hset(keys.slots, str(number), msgspec.json.encode(record))
        beside = named(look_at_versions(case))
        upgraded = named(look_at_versions(case_of(tmp_path, status(version="1.0"))))
    assert {finding.verdict for finding in alone.values()} == {"ok"}
    assert (beside["versions: workers"].verdict, beside["versions: workers"].said) == ("warn", "1 × 1.0, 1 × 2.0")
    assert beside["versions: supervisors with a slot"].said == "1 × 2.0"  # whose lease has run out does not count
    assert upgraded["versions: the running supervisor"].verdict == "warn"
    assert upgraded["versions: elsewhere"].verdict == "unknown"


@pytest.mark.pure
def test_without_systemctl_the_time_is_unknown(tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    finding = named(look_at_limits(case_of(tmp_path, status()), proc, tmp_path))["limits: time to stop"]
    assert finding.verdict == "unknown"
