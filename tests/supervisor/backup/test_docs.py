"""docs/disaster.md: every test that it names is there, and every row of its table of losses names one."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "disaster.md").read_text(encoding="utf-8")


def test_every_loss_is_tried_by_tests_that_are_there() -> None:
    table = PAGE.partition("## When something is lost")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 12
    assert [row for row in rows if "test" not in row.rsplit("|", 2)[1]] == []
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert named - there == set()


def test_every_command_that_it_shows_is_one() -> None:
    from supervisor.cli import COMMANDS  # noqa: PLC0415
    from supervisor.cli.backup import COMMANDS as UNDER_BACKUP  # noqa: PLC0415

    shown = re.findall(r"^hashee-agent (\w+) (\S+)", PAGE, re.MULTILINE)
    assert {first for first, _ in shown} <= COMMANDS.keys()
    assert {second for first, second in shown if first == "backup" and "." not in second} == UNDER_BACKUP.keys() - {
        "make"
    }
