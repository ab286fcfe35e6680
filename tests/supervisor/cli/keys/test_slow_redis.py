"""A command that waits for its private Redis says so."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from host import embedded
from supervisor.keeper.state_directory import make_private
from supervisor.settings.key_settings import KeySettings
from supervisor.store.access import TELL_SECONDS, private_redis
from tests.supervisor.cli.keys.running import environ_of

NEVER_READY = """#!/bin/sh
case "$1" in
--version) echo "Redis server v=7.2.0 sha=00000000:0 malloc=libc bits=64 build=0" ;;
*) exec sleep 60 ;;
esac
"""


async def test_a_private_redis_that_loads_for_long_is_told_with_its_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It waited without a word, as long as that takes."""
    server = tmp_path / "bin" / "redis-server"
    server.parent.mkdir()
    server.write_text(NEVER_READY, encoding="utf-8")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}:{os.environ['PATH']}")
    environ = environ_of(tmp_path)
    state_dir = Path(environ["HASHEE_STATE_DIR"])
    make_private(state_dir)
    layout = embedded.prepare(state_dir, state_dir)
    said: list[str] = []
    for seconds in (TELL_SECONDS / 2, TELL_SECONDS * 1.5):
        with trio.move_on_after(seconds):
            async with private_redis(KeySettings.from_environ(environ)):
                pytest.fail("nothing listens there")
        said.append(capsys.readouterr().err)
    assert "loads its files" not in said[0]
    assert f"the private Redis is started; it loads its files ({layout.log_path})" in said[1]
