"""Settings in a file: read as its neighbours read it, private, weaker than the environment, and clear about what is wrong."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli import COMMANDS, cli
from supervisor.cli.ending import ending_of
from supervisor.cli.sandbox import PASSED_ON
from supervisor.settings.env_files import EnvFileError, add_env_file, env_files_of, environ_anew, read_env_file
from tests.supervisor.cli.test_command_line import run
from tests.supervisor.settings.environment import SECRETS, TOKEN, agent_environ


def env_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "env"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("export NAME = spaced out  ", "spaced out"),
        ("NAME=aGVsbG8=", "aGVsbG8="),
        ("NAME=https://host/#place", "https://host/#place"),
        ("NAME='as $it is \\n'", "as $it is \\n"),
        (r'NAME="two\nlines and \"quotes\" and \\"', 'two\nlines and "quotes" and \\'),
        ("NAME=$HOME", "$HOME"),
        ("NAME=", ""),
    ],
)
def test_a_line_is_read(tmp_path: Path, line: str, value: str) -> None:
    assert read_env_file(env_file(tmp_path, f"# a comment\n\n{line}\n")) == {"NAME": value}


def test_what_an_editor_of_windows_has_saved_is_read(tmp_path: Path) -> None:
    path = env_file(tmp_path, "")
    path.write_bytes(b"\xef\xbb\xbfNAME=value\r\nOTHER='two words'\r\n")
    assert read_env_file(path) == {"NAME": "value", "OTHER": "two words"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no sign", "NAME=value is wanted"),
        ("1NAME=x", "NAME=value is wanted"),
        ("NAME=secret # comment", "a comment on a line of its own"),
        ("NAME='secret", "the quote is not closed"),
        ('NAME="', "the quote is not closed"),
        ('NAME="secret" more"', 'a " within double quotes'),
        ("NAME='secret' more'", "a ' cannot stand"),
        ("NAME=sec\0ret", "NUL"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line_and_not_shown(tmp_path: Path, line: str, complaint: str) -> None:
    path = env_file(tmp_path, f"GOOD=1\n{line}\n")
    with pytest.raises(EnvFileError) as caught:
        read_env_file(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)


@given(st.text(st.characters(exclude_characters="\0\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8")))
def test_every_text_can_be_written_in_double_quotes(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert read_env_file(env_file(tmp_path_factory.mktemp("env"), f'NAME="{quoted}"')) == {"NAME": text}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = env_file(tmp_path, "NAME=x", mode)
    with pytest.raises(EnvFileError, match=f"chmod 600 {path}"):
        read_env_file(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(EnvFileError, match="not a file"):
        read_env_file(tmp_path / "pipe")
    with pytest.raises(EnvFileError, match="cannot be read: No such file"):
        read_env_file(tmp_path / "missing")


def test_the_environment_is_stronger_and_an_empty_value_in_it_is_none(tmp_path: Path) -> None:
    environ = {"A": "mine", "B": ""}
    add_env_file(env_file(tmp_path, "A=file\nB=file\nC=file"), environ)
    assert (environ["A"], environ["B"], environ["C"]) == ("mine", "file", "file")


def test_every_command_has_the_option() -> None:
    for name in COMMANDS:
        if name not in PASSED_ON:  # their --help is the sandbox's own
            assert "--env-file" in CliRunner().invoke(cli, [name, "--help"]).output, name


@pytest.mark.parametrize("before", [True, False])
def test_a_command_reads_its_settings_from_the_file(tmp_path: Path, before: bool) -> None:
    environ = agent_environ() | {"HASHEE_STATE_DIR": str(tmp_path / "state")}
    path = env_file(tmp_path, "".join(f"{name}={value}\n" for name, value in environ.items()))
    arguments = ["--env-file", str(path), "check-settings"] if before else ["check-settings", "--env-file", str(path)]
    done = run(*arguments, environ={"PATH": os.environ["PATH"]}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_is_read_again_whatever_its_name_is(tmp_path: Path) -> None:
    path = env_file(tmp_path, "A=1\n").rename(tmp_path / os.fsdecode(b"a:b %41\xff\nc.env"))
    environ: dict[str, str] = {}
    add_env_file(path, environ)
    path.write_text("A=2\n", encoding="utf-8")
    assert environ_anew(environ)["A"] == "2"
    assert env_files_of(environ) == (path,)


def test_a_wrong_file_is_78_and_one_line(tmp_path: Path) -> None:
    path = env_file(tmp_path, f"HASHEE_AGENT_TOKEN='{TOKEN}\n")
    done = run("check-settings", "--env-file", str(path), environ={"PATH": os.environ["PATH"]}, cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr == f"hashee-agent: {path}, line 1: the quote is not closed at the end of the line\n"
    assert not any(secret in done.stderr for secret in SECRETS)


def test_the_error_is_a_refusal_also_out_of_a_nursery() -> None:
    assert ending_of(ExceptionGroup("", [EnvFileError("x, line 1: y")])).status == 78
