"""Alert rules, runbooks and dashboard: each rule fires and is quiet, each page exists and names real commands and metrics."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Context, Group

from supervisor.cli import cli
from tests.trials.deploy.metrics_page import names

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy/monitoring"
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
DOCS = [*RUNBOOKS, *sorted((ROOT / "docs/deploy").glob("*.md")), ROOT / "docs/security.md"]
ALERTS = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
METRIC = re.compile(r"\b(?:hashee|business)_[a-z0-9_]+")
COMMAND = re.compile(r"(?:^|[ `&(])hashee-agent (?:--slot \w+ )?([a-z][a-z-]*)(?: ([a-z][a-z-]+))?")


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run(
        [program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_is_quiet_when_it_should_not() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")
    tests = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", ALERTS):
        assert f"- name: {alert} fires" in tests
        assert f"- name: {alert} is quiet" in tests


@pytest.mark.pure
def test_every_alert_has_a_summary_and_a_runbook_that_exists_and_names_it() -> None:
    rules = ALERTS.split("- alert: ")[1:]
    for rule in rules:
        alert = rule.split()[0]
        (runbook,) = re.findall(r"runbook: (\S+)", rule)
        assert "summary: " in rule, alert
        assert f"`{alert}`" in (ROOT / runbook).read_text(encoding="utf-8"), alert
    linked = set(re.findall(r"runbook: docs/runbooks/(\S+)", ALERTS))
    assert linked == {path.name for path in RUNBOOKS}


@pytest.mark.pure
def test_every_query_names_metrics_that_exist() -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [ALERTS, *(variable["query"] for variable in dashboard["templating"]["list"])]
    used = {name for query in queries for name in METRIC.findall(query)}
    assert len(used) > 20
    assert used <= names()


@pytest.mark.pure
@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.name))
def test_a_page_names_only_metrics_and_commands_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    without_labels = {name.removesuffix("_total") for name in names()}
    wrong = {name for name in METRIC.findall(text) if name.removesuffix("_total") not in without_labels}
    assert not {name for name in wrong if not any(known.startswith(name) for known in names())}
    known = set(commands(cli))
    for command, sub in COMMAND.findall(text):
        assert (command,) in known, f"{path.name}: hashee-agent {command}"
        if sub and any(len(words) > 1 and words[0] == command for words in known):
            assert (command, sub) in known, f"{path.name}: hashee-agent {command} {sub}"


@pytest.mark.pure
@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.name))
def test_a_page_links_only_to_what_exists(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def commands(group: Group, *before: str) -> Iterator[tuple[str, ...]]:
    context = Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*before, name)
        if isinstance(command, Group):
            yield from commands(command, *before, name)
