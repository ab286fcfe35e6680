"""Room on the disk, and what the agent says of itself."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.doctor.agent import look_at_agent
from supervisor.doctor.disk import look_at_disk
from supervisor.doctor.findings import Finding
from tests.supervisor.doctor.builders import case_of, named, verdicts

pytestmark = pytest.mark.pure

MIB = 1 << 20


def disk(state_dir: Path, *, free_mib: int, inodes: int = 1_000_000) -> dict[str, Finding]:
    blocks = free_mib * MIB // 4096
    found = os.statvfs_result((4096, 4096, 1 << 30, blocks, blocks, 1 << 20 if inodes else 0, inodes, inodes, 0, 255))
    return named(look_at_disk(case_of(state_dir), lambda _: found))


def test_a_disk_without_room_for_a_rewrite_is_bad_and_one_that_will_be_is_a_warning(tmp_path: Path) -> None:
    files = tmp_path / "redis" / "appendonlydir"
    files.mkdir(parents=True)
    with (files / "appendonly.aof.1.incr.aof").open("wb") as file:
        file.truncate(100 * MIB)
    for free_mib, verdict in ((1000, "ok"), (200, "warn"), (110, "bad"), (0, "bad")):
        finding = disk(tmp_path, free_mib=free_mib)["disk: state directory"]
        assert (finding.verdict, f"{free_mib} MiB free" in finding.said) == (verdict, True)


def test_a_disk_without_inodes_is_bad_where_it_has_a_number_of_them(tmp_path: Path) -> None:
    for inodes, verdict in ((500, "warn"), (3, "bad")):
        assert disk(tmp_path, free_mib=9999, inodes=inodes)["disk: state directory's inodes"].verdict == verdict
    assert "disk: state directory's inodes" not in disk(tmp_path, free_mib=9999, inodes=0)


def test_a_state_directory_that_is_not_there_yet_is_on_the_disk_above_it(tmp_path: Path) -> None:
    assert str(tmp_path) in named(look_at_disk(case_of(tmp_path / "a" / "b")))["disk: state directory"].said


def status(**changes: Any) -> dict[str, Any]:
    supervisor = {
        "pid": 7,
        "uptime_seconds": 90.0,
        "checks": [{"name": "relay", "ok": True, "detail": "heard 1 s ago"}],
        "connection": {"standby": False, "refusal": None, "slot": 1, "state": "connected", "detail": "authenticated"},
        "prekeys_left": 100,
        "pool": {"crash_loop": None, "reload_problem": ""},
        "work": {"dead_letters": 0, "quarantined": 0},
    }
    return {"keeper": None, "problem": "", "supervisor": {**supervisor, **changes}}


def agent(tmp_path: Path, **changes: Any) -> dict[str, Finding]:
    return named(look_at_agent(case_of(tmp_path, status(**changes))))


def test_an_agent_that_is_well(tmp_path: Path) -> None:
    assert set(verdicts(look_at_agent(case_of(tmp_path, status()))).values()) == {"ok"}


def test_each_thing_that_is_wrong_is_told_with_its_runbook(tmp_path: Path) -> None:
    red = {"name": "identity", "ok": False, "detail": "another agent with this identity"}
    twin = agent(tmp_path, checks=[red])["agent: check identity"]
    assert (twin.verdict, "docs/runbooks/twin.md" in twin.remedy) == ("bad", True)
    new = agent(tmp_path, checks=[{**red, "name": "of tomorrow"}])["agent: check of tomorrow"]
    assert "docs/runbooks/not-ready.md" in new.remedy
    refused = {**status()["supervisor"]["connection"], "refusal": "invalid_token"}
    assert agent(tmp_path, connection=refused)["agent: slot"].verdict == "bad"
    for left, verdict in ((None, "unknown"), (10, "warn"), (25, "ok")):
        assert agent(tmp_path, prekeys_left=left)["agent: one-time prekeys"].verdict == verdict
    now_ms = int(time.time() * 1000)
    for days, verdict in ((3, "ok"), (9, "warn"), (20, "bad")):
        finding = agent(tmp_path, signed_prekey_since_ms=now_ms - days * 86_400_000)["agent: signed prekey"]
        assert (finding.verdict, f"{days}.0 days ago" in finding.said) == (verdict, True)
    assert agent(tmp_path, has_witness=False)["agent: witness"].verdict == "warn"
    assert agent(tmp_path, has_witness=True)["agent: witness"].verdict == "ok"
    assert "agent: witness" not in agent(tmp_path, has_witness=None)
    loop = {"crash_loop": {"deaths": 5}, "reload_problem": "SyntaxError"}
    assert agent(tmp_path, pool=loop)["agent: crash loop"].verdict == "bad"
    assert agent(tmp_path, pool=loop)["agent: reload"].verdict == "warn"
    waiting = agent(tmp_path, work={"dead_letters": 2, "quarantined": 1})
    assert waiting["agent: dead letters"].remedy == "hashee-agent dead list"
    assert waiting["agent: quarantine"].verdict == "warn"
    assert agent(tmp_path, work=None)["agent: what waits"].verdict == "unknown"


def test_other_keys_than_before_are_a_warning_as_long_as_status_says_so(tmp_path: Path) -> None:
    assert "agent: identity" not in agent(tmp_path, identity_since_ms=None)
    finding = agent(tmp_path, identity_since_ms=1_000)["agent: identity"]
    assert (finding.verdict, "former keys" in finding.remedy) == ("warn", True)


def test_no_agent_is_unknown_and_a_keeper_without_supervisor_is_bad(tmp_path: Path) -> None:
    assert verdicts(look_at_agent(case_of(tmp_path))) == {"agent: running": "unknown"}
    lonely = {"keeper": {"pid": 1}, "supervisor": None, "problem": "the supervisor does not answer"}
    finding = named(look_at_agent(case_of(tmp_path, lonely)))["agent: running"]
    assert (finding.verdict, finding.said) == ("bad", "the supervisor does not answer")


def test_every_runbook_that_is_named_is_there() -> None:
    root = Path(__file__).parents[3]
    sources = "".join(path.read_text(encoding="utf-8") for path in (root / "supervisor" / "doctor").glob("*.py"))
    named_pages = set(re.findall(r"docs/[\w./-]+\.md", sources))
    assert len(named_pages) > 8
    assert [page for page in sorted(named_pages) if not (root / page).exists()] == []
