"""The way that leads to the code, from what a program can know of its start: real directories, real links."""

import os
import sys
from pathlib import Path

import pytest

from host.code_place import Code, CodeGone, CodePlace, ProgramPath, way_of, way_of_this_process

pytestmark = pytest.mark.pure


def release(folder: Path, name: str) -> Path:
    """`name/venv/bin` with a python (a link, as in a virtual environment) and a script, and `name/app`."""
    made = folder / name
    (made / "venv/bin").mkdir(parents=True)
    (made / "app").mkdir()
    (made / "venv/bin/python").symlink_to(sys.executable)
    (made / "venv/bin/hashee-agent").touch()
    return made


def switch(link: Path, to: Path) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(to)
    fresh.replace(link)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    release(tmp_path, "r2")
    switch(tmp_path / "current", release(tmp_path, "r1"))
    return tmp_path / "current"


def found(*, python: Path, called: str, directory: Path, logical: Path | None = None) -> ProgramPath:
    """As a script of r1's environment finds it: the kernel and its first line know only r1."""
    return way_of(
        python=python,
        is_environment=True,
        called=["python", called],
        directory=directory.resolve(),
        logical=None if logical is None else str(logical),
    )


def test_a_script_called_through_a_link(current: Path) -> None:
    r1 = current.resolve()
    way = found(python=r1 / "venv/bin/python", called=str(current / "venv/bin/hashee-agent"), directory=Path("/"))
    assert way == ProgramPath(current / "venv/bin/python", Path("/"))


def test_a_working_directory_behind_the_same_link_without_pwd_as_under_systemd(current: Path) -> None:
    python, script = current.resolve() / "venv/bin/python", str(current / "venv/bin/hashee-agent")
    assert found(python=python, called=script, directory=current / "app") == ProgramPath(
        current / "venv/bin/python", current / "app"
    )


def test_a_shell_in_the_link_calls_the_script_by_its_real_path_or_a_relative_one(current: Path) -> None:
    python = current.resolve() / "venv/bin/python"
    for script in (str(current.resolve() / "venv/bin/hashee-agent"), "../venv/bin/hashee-agent"):
        way = found(python=python, called=script, directory=current / "app", logical=current / "app")
        assert way == ProgramPath(current / "venv/bin/python", current / "app")


def test_a_pwd_that_is_not_the_working_directory_counts_for_nothing(current: Path) -> None:
    python, script = current.resolve() / "venv/bin/python", str(current.resolve() / "venv/bin/hashee-agent")
    for wrong in (current / "venv", current / "nowhere", Path("app")):
        way = found(python=python, called=script, directory=current / "app", logical=wrong)
        assert way == ProgramPath(python, current.resolve() / "app")


def test_a_working_directory_that_was_given_without_the_link_stays_so(current: Path) -> None:
    r1 = current.resolve()
    way = found(
        python=r1 / "venv/bin/python",
        called=str(current / "venv/bin/hashee-agent"),
        directory=r1 / "app",
        logical=r1 / "app",
    )
    assert way.directory == r1 / "app"


def test_a_command_that_is_a_link_into_the_environment(current: Path, tmp_path: Path) -> None:
    command = tmp_path / "hashee-agent"
    command.symlink_to("current/venv/bin/hashee-agent")
    way = found(python=current.resolve() / "venv/bin/python", called=str(command), directory=Path("/"))
    assert way.python == current / "venv/bin/python"


def test_a_link_above_all_releases_is_not_taken_for_the_one_that_is_switched(current: Path, tmp_path: Path) -> None:
    above = tmp_path.with_name(f"{tmp_path.name}-above")
    above.symlink_to(tmp_path)
    way = found(
        python=above / "r1/venv/bin/python",
        called=str(above / "current/venv/bin/hashee-agent"),
        directory=current / "app",
        logical=above / "current/app",
    )
    assert way == ProgramPath(above / "current/venv/bin/python", above / "current/app")


def test_an_interpreter_of_no_environment_stays_where_it_is(current: Path) -> None:
    way = way_of(
        python=Path("/usr/bin/python3"),
        is_environment=False,
        called=["python3", "-m"],
        directory=current.resolve(),
        logical=str(current),
    )
    assert way == ProgramPath(Path("/usr/bin/python3"), current)


def test_what_was_started_goes_on_from_its_place_until_that_is_gone(current: Path, tmp_path: Path) -> None:
    way = ProgramPath(current / "venv/bin/python", current / "app")
    code = Code(way, way.look())
    assert code.in_use() == CodePlace(tmp_path / "r1/venv/bin/python", tmp_path / "r1/app")
    switch(current, tmp_path / "r2")
    assert code.in_use().directory == tmp_path / "r1/app"
    assert way.look().directory == tmp_path / "r2/app"
    (tmp_path / "r1/app").rmdir()
    assert code.in_use() == CodePlace(tmp_path / "r2/venv/bin/python", tmp_path / "r2/app")


def test_a_way_that_leads_nowhere_names_the_link_and_where_it_points(current: Path, tmp_path: Path) -> None:
    way = ProgramPath(current / "venv/bin/python", current / "app")
    switch(current, tmp_path / "r3")
    with pytest.raises(CodeGone) as gone:
        way.look()
    assert str(gone.value) == (
        f"{current}/venv/bin/python is not there: {current} points at {tmp_path}/r3, where nothing is"
    )
    switch(current, tmp_path / "r2")
    (tmp_path / "r2/app").rmdir()
    with pytest.raises(CodeGone, match=r"current/app is not there$"):
        way.look()


def test_a_keepers_word_counts_more_than_what_a_child_sees(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: dict[str, str] = {}
    ProgramPath(current / "venv/bin/python", current).note(noted)
    assert way_of_this_process(noted) == ProgramPath(current / "venv/bin/python", current)
    monkeypatch.chdir(current)
    assert way_of_this_process({"PWD": str(current)}).directory == current
    assert way_of_this_process({}).directory == current.resolve()


def test_a_working_directory_that_was_deleted_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert way_of_this_process(os.environ | {"PWD": str(gone)}).directory is None
    assert CodePlace.of_this_process().is_there
