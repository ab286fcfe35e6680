"""An owner's directory has files with names of ours, of our libraries and of Python: one line says so, or it does not matter.

The commands are run in it as people do: by the console script and by `python -m`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from host.entrance import PACKAGES, PackageShadowed, refuse_shadows
from supervisor.cli import COMMANDS
from tests.supervisor.keeper.running import ROOT
from tests.supervisor.settings.environment import process_environ

SCRIPT = str(Path(sys.executable).with_name("hashee-agent"))
MODULE = (sys.executable, "-m", "supervisor")
BY_MODULE = [(sys.executable, "-m", name) for name in ("supervisor", "sandbox", "workers")]
LIBRARIES = ("click", "trio", "redis", "rich", "msgspec", "structlog", "httpx2")
OF_OTHERS = (*LIBRARIES, "json", "logging", "sandbox")


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT), **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def is_refused(done: subprocess.CompletedProcess[str], path: Path) -> bool:
    line = f"hashee-agent: {path} hides hashee-agent's own package bus: rename it or start from elsewhere\n"
    return (done.returncode, done.stdout, done.stderr) == (78, "", line)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_beside_a_file_that_hides_one_of_our_packages_says_it_in_one_line(
    tmp_path: Path, name: str
) -> None:
    hiding = tmp_path / "bus.py"
    hiding.touch()
    environ = process_environ(tmp_path / "state")
    assert is_refused(run(SCRIPT, name, cwd=tmp_path, **environ), hiding)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", BY_MODULE, ids=lambda command: command[-1])
def test_so_does_python_m_of_each_of_our_programs(tmp_path: Path, command: tuple[str, ...]) -> None:
    hiding = tmp_path / "bus"
    hiding.mkdir()
    (hiding / "__init__.py").touch()
    assert is_refused(run(*command, "--help", cwd=tmp_path), hiding)


def test_a_folder_on_pythonpath_that_hides_ours_is_named_with_its_remedy(tmp_path: Path) -> None:
    (folder := tmp_path / "theirs").mkdir()
    (folder / "crypto.py").touch()
    done = run(SCRIPT, "version", cwd=tmp_path, PYTHONPATH=str(folder))
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert str(folder / "crypto.py") in done.stderr
    assert f"take {folder} out of PYTHONPATH" in done.stderr


def test_files_with_the_names_of_libraries_and_of_the_sandbox_hide_nothing_from_us(tmp_path: Path) -> None:
    for name in OF_OTHERS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('theirs')\n", encoding="utf-8")
    for command in ((SCRIPT, "version"), (*MODULE, "version"), (SCRIPT, "sandbox", "relay", "--help")):
        done = run(*command, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [(SCRIPT,), *BY_MODULE], ids=lambda command: command[-1].rpartition("/")[2])
def test_closed_standard_streams_are_open_before_a_library_could_take_their_number(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """As libffi does, which ctypes loads: it keeps its own file open."""
    (folder := tmp_path / "libraries").mkdir()
    opens = "import os, sys\nos._exit(os.open(sys.executable, os.O_RDONLY))\n"
    for name in LIBRARIES:
        (folder / f"{name}.py").write_text(opens, encoding="utf-8")
    closed = ("/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-')
    done = run(*closed, *command, "--help", cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{folder}")
    assert done.returncode >= 3


@pytest.mark.long
def test_the_demo_runs_beside_such_files(tmp_path: Path) -> None:
    for name in OF_OTHERS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('theirs')\n", encoding="utf-8")
    done = run(SCRIPT, "demo", "--scripted", cwd=tmp_path, PATH="/usr/bin:/bin", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert '"answered":20' in done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_a_file_that_hides_one_of_our_packages_is_refused(tmp_path: Path, name: str) -> None:
    refuse_shadows(tmp_path)
    (tmp_path / f"{name}.py").touch()
    with pytest.raises(PackageShadowed, match=rf"{name}\.py hides"):
        refuse_shadows(tmp_path)


def test_our_own_source_tree_hides_nothing(tmp_path: Path) -> None:
    refuse_shadows(ROOT)
    (link := tmp_path / "current").symlink_to(ROOT)
    refuse_shadows(link)


def test_a_folder_of_data_hides_a_package_only_where_ours_is_found_later(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    installed = tmp_path / "site-packages"
    (installed / "workers").mkdir(parents=True)
    with pytest.raises(PackageShadowed):
        refuse_shadows(tmp_path, installed)  # it is not on sys.path, as with an editable installation
