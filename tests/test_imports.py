"""What is imported of others: each a dependency of ours, some in one place only; and what a keeper loads, as a process."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = frozenset({"crypto", "host", "bus", "workers", "supervisor", "sandbox", "tests", "bench", "examples"})
PACKAGES = ("crypto", "host", "bus", "workers", "supervisor", "sandbox", "examples")
KEYS_AND_MESSAGES = ("crypto", "httpx2", "openai", "trio_websocket", "supervisor.run.app", "workers", "sandbox")


@cache
def imported_names(path: Path) -> frozenset[str]:
    return frozenset(_imported_names(path))


def _imported_names(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level], *([node.module] if node.module else [])])
            module = base if node.level else node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.pure
def test_whatever_is_imported_is_a_dependency_of_ours_and_not_only_somebody_elses() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *project["optional-dependencies"]["otel"],
        *project["optional-dependencies"]["mcp"],
        *project["optional-dependencies"]["manifest"],
    ]
    named = {re.split(r"[\[<>=]", line)[0].lower() for line in requirements}
    providers = packages_distributions()
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in {name.split(".", maxsplit=1)[0] for name in imported_names(path)}
        if name not in OURS | sys.stdlib_module_names
        and not named & {provider.lower().replace("_", "-") for provider in providers.get(name, (name,))}
    }
    assert sorted(wrong) == []


@pytest.mark.pure
def test_only_the_adapter_imports_trio_websocket() -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if any(name.split(".")[0] == "trio_websocket" for name in imported_names(path))
    }
    assert users <= {"supervisor/relay/websocket.py"}


@pytest.mark.pure
def test_crypto_does_no_io() -> None:
    forbidden = {"trio", "redis", "socket", "time", "os", "random", "secrets", "asyncio", "threading", "subprocess"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "crypto").rglob("*.py")
        for name in imported_names(path)
        if name.split(".")[0] in forbidden
    ]
    assert wrong == []


def test_the_keeper_loads_nothing_that_deals_with_keys_or_messages() -> None:
    program = "import sys, supervisor.cli.up; print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(KEYS_AND_MESSAGES)


@pytest.mark.parametrize("command", ["up", "supervisor", "files", None])
def test_no_process_that_stays_loads_what_it_does_not_use(command: str | None) -> None:
    """By way of structlog and of redis; all can be imported later by whoever needs them."""
    process = "workers.__main__" if command is None else f"supervisor.__main__, supervisor.cli.{command}"
    names = ("rich", "pygments", "opentelemetry", "redis", "redis.client", "redis.asyncio", "redis.commands")
    program = f"import sys, {process}; print(*[one for one in {names} if one in sys.modules]); import rich.console, opentelemetry.trace, redis.asyncio"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stdout == "\n"
