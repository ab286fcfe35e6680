"""An agent and its commands where the locale is not UTF-8: nothing that people write or are called ends a command or a log."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.waiting import waiting_for
from tests.world import World, world

GBK = "zh_CN.GBK"
IN_GBK = "\u4f60\u597d"
NOWHERE_BUT_IN_UNICODE = "\u2713 \U0001f642"
NO_TEXT_ANYWHERE = b"/\xc3\xa9 \xff"  # of a state directory; on Linux any bytes are a name
WAIT_SECONDS = 60.0
PROGRAM = (sys.executable, "-m", "supervisor")
PLAIN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMANDS = (
    ("check-settings",),
    ("status",),
    ("version",),
    *((name, "list") for name in ("dead", "grants", "quarantine")),
)


def a_locale(folder: Path, name: str) -> dict[str, str]:
    """The variables that choose it; made in `folder` where it has to be."""
    if name != GBK:
        return {"unset": {}, "C": {"LC_ALL": "C"}, "ASCII": PLAIN_ASCII}[name]
    localedef = shutil.which("localedef")
    if localedef is None or not Path("/usr/share/i18n/charmaps/GBK.gz").exists():
        pytest.skip("no locale can be made: apt-get install locales")
    made = subprocess.run([localedef, "-i", "zh_CN", "-f", "GBK", folder / GBK], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    return {"LC_ALL": GBK, "LOCPATH": str(folder)}


def environment(chosen: dict[str, str]) -> dict[str, str]:
    """Only what was chosen says anything of a locale."""
    of_locales = ("LANG", "LC_", "LOCPATH", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    return {name: value for name, value in os.environ.items() if not name.startswith(of_locales)} | chosen


def encoding_in(chosen: dict[str, str]) -> str:
    """Of a Python's output there."""
    says = "import sys; print(sys.stdout.encoding)"
    done = subprocess.run([sys.executable, "-c", says], env=chosen, capture_output=True, check=True)
    return done.stdout.decode().strip().lower()


async def said_by(w: World, *arguments: str) -> bytes:
    """What a command printed that ended well, without a word on stderr that is no warning."""
    with waiting_for(f"{arguments} to end", WAIT_SECONDS):
        done = await trio.run_process(
            [*PROGRAM, *arguments], env=w.environment, capture_stdout=True, capture_stderr=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name", ["unset", GBK, *(pytest.param(name, marks=pytest.mark.long) for name in ("C", "ASCII"))]
)
async def test_an_agent_answers_and_every_command_ends_well_in_a_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chosen = environment(a_locale(tmp_path, name))
    monkeypatch.setattr(os, "environ", chosen)
    assert encoding_in(chosen) == {"ASCII": "ascii", GBK: "gbk"}.get(name, "utf-8")
    text = f"{IN_GBK} {NOWHERE_BUT_IN_UNICODE}"
    state_dir = os.fsdecode(os.fsencode(tmp_path) + NO_TEXT_ANYWHERE)
    settings = {
        "HASHEE_STATE_DIR": state_dir,
        "HASHEE_HANDLER": "tests.supervisor.cli.letters.handlers:agent",
        "HASHEE_RETRY_SECONDS": "0.05",
    }
    async with world(tmp_path, people=(text,), **settings) as w:
        [person] = w.people
        await person.say(w.conversations[person], f"break {text}")
        with waiting_for(f"{text!r} to be heard", WAIT_SECONDS):
            await person.transcript.until(lambda: text in person.transcript.heard(w.conversations[person]))
        for command in COMMANDS:
            await said_by(w, *command)
        with waiting_for("a dead letter to be listed", WAIT_SECONDS):
            while not (listed := await said_by(w, "dead", "list")).strip():
                await trio.sleep(0.1)
        [letter] = listed.split()[:1]
        shown = await said_by(w, "dead", "show", letter.decode(), "--content")
        assert b"break " in shown
    assert "drain: done" in (tmp_path / "up.log").read_text(encoding="utf-8", errors="replace")
