"""Every command of docs/keys.md, in its order, as somebody would type it."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

from supervisor.cli.keys import COMMANDS
from tests.supervisor.cli.keys.running import environ_of, make_store, run
from tests.supervisor.keeper.running import ROOT
from tests.supervisor.settings.environment import AGENT_ID

PAGE = ROOT / "docs" / "keys.md"


def commands() -> list[str]:
    return [
        block.strip()
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]


def test_every_command_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    environ = environ_of(
        tmp_path,
        HASHEE_X25519_PRIVATE_BASE64="",
        HASHEE_ED25519_PRIVATE_BASE64="",
        HASHEE_BACKUP_PASSPHRASE_FILE=str(tmp_path / "passphrase"),
    )
    program = tmp_path / "bin" / "hashee-agent"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisor "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "passphrase").write_text("correct horse battery staple\n", encoding="utf-8")
    make_store(environ)
    secret = base64.b64encode((tmp_path / "state" / "store.secret").read_bytes())
    script = "set -e\n"
    for command in commands():
        if "old-store.key" in command:  # the store's secret as it is by then, given from outside
            script += "base64 -w 0 < state/store.secret > old-store.key\n"
        script += command + "\n"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={**environ, "PATH": f"{program.parent}{os.pathsep}{environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".hashee" / AGENT_ID / "keystore.json").exists()
    assert secret.decode() not in done.stdout + done.stderr
    rotated = environ_of(tmp_path, HASHEE_STORE_KEY_FILE=str(tmp_path / "new-store.key"))
    assert (tmp_path / "worker.env").read_text(encoding="utf-8") != run(
        "keys", "bus", environ=rotated, cwd=tmp_path
    ).stdout


def test_every_command_stands_on_the_page() -> None:
    text = "\n".join(commands())
    assert [name for name in COMMANDS if f"hashee-agent keys {name}" not in text] == []
