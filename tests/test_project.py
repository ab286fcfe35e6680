"""The project as a whole: what its pages promise is in the code, and nothing of any one machine is in its files."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.settings.table import ALL_SETTINGS

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[1]
PACKAGES = ("crypto", "host", "bus", "workers", "supervisor", "sandbox")
NOT_OURS = frozenset({".git", ".venv", ".hypothesis", "__pycache__", "build", "dist", "node_modules"})
TEXT_SUFFIXES = frozenset(
    {"", ".py", ".md", ".toml", ".lock", ".lua", ".txt", ".yml", ".yaml", ".json", ".service", ".conf", ".sh", ".html"}
)
MACHINE_PATHS = re.compile("|".join(["/" + "work/", "/" + r"root/\w", "/" + "tmp/spec", r"\." + "pyenv"]))
MERGE_MARKS = re.compile("^(<{7} |>{7} )", re.MULTILINE)
REGISTRIES = re.compile(r"https?://|--(extra-)?index-url|--find-links|file:")


def project() -> dict[str, object]:
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table = loaded["project"]
    assert isinstance(table, dict)
    return table


def requirement_names(requirements: object) -> set[str]:
    assert isinstance(requirements, list)
    return {match[0] for text in requirements if (match := re.match(r"[A-Za-z0-9._-]+", text))}


def all_requirements() -> set[str]:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    names = requirement_names(project()["dependencies"])
    return names.union(*(requirement_names(extra) for extra in extras.values()))


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {package.lower(): version for package, version in found}


def text_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        ours = (Path(folder, name) for name in files if name not in NOT_OURS)  # in a worktree `.git` is a file
        yield from (path for path in ours if path.suffix in TEXT_SUFFIXES and path.is_file())


def test_no_file_names_a_path_of_one_machine() -> None:
    wrong = {
        str(path.relative_to(ROOT)): found[0]
        for path in text_files()
        if (found := MACHINE_PATHS.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert wrong == {}


def test_no_file_has_the_marks_of_a_merge() -> None:
    assert [
        path for path in text_files() if MERGE_MARKS.search(path.read_text(encoding="utf-8", errors="ignore"))
    ] == []


def test_the_dependencies_page_has_a_line_for_each_and_for_nothing_else() -> None:
    described = re.findall(
        r"^\| `([^`]+)` \| \S", (ROOT / "docs/dependencies.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(described) == sorted(all_requirements())


def test_the_settings_page_is_what_the_program_reads() -> None:
    rows = {}
    for line in (ROOT / "docs/settings.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| `([A-Z0-9_]+)`( 🔑)? \| (.+?) \| (.+?) \| .+ \|$", line):
            rows[found[1]] = (bool(found[2]), found[3], found[4])
    assert rows == {
        setting.name: (setting.secret, setting.expectation, f"`{setting.default}`" if setting.default else "–")
        for setting in ALL_SETTINGS
    }


def test_the_lock_files_pin_every_dependency_with_hashes_and_name_no_registry() -> None:
    for part in ("", "-dev", "-otel", "-mcp", "-manifest", "-valkey"):
        name = f"requirements{part}.lock"
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not REGISTRIES.search(text), name
        blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
        assert all("--hash=sha256:" in block for block in blocks if "==" in block), name


def test_the_dev_lock_is_the_runtime_lock_and_more() -> None:
    runtime, otel, dev = (pins(f"requirements{part}.lock") for part in ("", "-otel", "-dev"))
    assert runtime.items() < otel.items() < dev.items()
    assert runtime.items() < pins("requirements-mcp.lock").items() < dev.items()
    assert runtime.items() < pins("requirements-manifest.lock").items() < dev.items()
    assert {name.lower() for name in requirement_names(project()["dependencies"])} <= {
        name.replace("_", "-") for name in runtime
    }


def test_the_private_server_is_pinned_where_its_extra_says() -> None:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    assert [f"{name}=={version}" for name, version in pins("requirements-valkey.lock").items()] == extras["valkey"]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_file_opens_with_its_rule_in_its_docstring(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            wrong.append(f"{path.relative_to(ROOT)} has no docstring")
    assert wrong == []


PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
OF_AN_OWNER = {"my_agent.py", "agent.py", "test_agent.py"}


@pytest.mark.pure
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there_by_its_whole_path(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`([\w.*-]+(?:/[\w.*-]+)*(?:\.py|\.lua|/))`", text)
    missing = [name for name in named if name not in OF_AN_OWNER and not any(ROOT.glob(name))]
    assert missing == [], "say its whole path, from the root of the repository"


def test_the_readme_links_to_pages_that_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_every_test_that_the_operators_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 40
    assert named - there == set()


def test_every_row_of_the_operators_table_is_held_by_a_test() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "operate.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ][2:]
    assert len(rows) > 25
    assert [row for row in rows if "`test_" not in row] == []


def test_every_wait_of_a_test_says_what_it_waits_for() -> None:
    """A bare TooSlowError names nothing; `waiting_for` and `until` (tests/waiting.py) do."""
    named = [
        (path, text)
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if "fail_a" in (text := path.read_text(encoding="utf-8"))
    ]
    bare = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path, text in named
        for node in ast.walk(ast.parse(text))
        if getattr(node, "attr", getattr(node, "id", "")) in {"fail_after", "fail_at"}
    ]
    assert bare == []


def test_the_wheel_has_our_packages_and_no_test_nor_example() -> None:
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert loaded["packages"]["find"]["include"] == [f"{name}*" for name in PACKAGES]
    top = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists() or any(path.glob("*.py"))}
    assert top - {*PACKAGES, *NOT_OURS} == {"tests", "bench", "examples"}
    assert not any(name.startswith(PACKAGES) for name in ("tests", "bench", "examples", "docs", "deploy"))
    tests = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py") if re.match("test_|conftest", path.name)]
    assert tests == []
