"""`hashee-agent keys …` as a person meets it: what is printed, what is written, what is never written over."""

import base64
import fcntl
import os
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bus.records.keys import Keys
from bus.records.sealing import StoreKeys
from bus.settings.shared import SHOWS_ERRORS
from bus.steps.vault import Vault
from bus.transport.client import open_redis
from crypto.identity import IdentityKeys, LocalDevice
from crypto.words import WORDS
from supervisor.observe.metrics import Metrics
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.settings.pauses import Pauses
from tests.redis_server import redis_server
from tests.supervisor.cli.keys.running import PROGRAM, environ_of, run
from tests.supervisor.doubles import FakeRest
from tests.supervisor.settings.environment import AGENT_ID, ED25519_PRIVATE, STORE_KEY, X25519_PRIVATE
from tests.waiting import waiting_for

NO_KEYS = {"HASHEE_X25519_PRIVATE_BASE64": "", "HASHEE_ED25519_PRIVATE_BASE64": ""}
PASSPHRASE = "Blaue Kühe, 7 Stück"


def with_passphrase(directory: Path, text: str = PASSPHRASE, **more: str) -> dict[str, str]:
    path = directory / f"passphrase {len(text)}"
    path.write_text(text + "\n", encoding="utf-8")
    return environ_of(directory, HASHEE_BACKUP_PASSPHRASE_FILE=str(path), **more)


def files_under(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def test_generate_prints_two_lines_that_the_settings_take(tmp_path: Path) -> None:
    done = run("keys", "generate", environ=environ_of(tmp_path, **NO_KEYS), cwd=tmp_path)
    made = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert set(made) == set(NO_KEYS)
    checked = run("check-settings", environ=environ_of(tmp_path, **made, HASHEE_SHOW_ERRORS="on"), cwd=tmp_path)
    assert (checked.returncode, SHOWS_ERRORS in checked.stdout) == (0, True)
    assert files_under(tmp_path) == {}


def test_generate_writes_a_keystore_once_and_the_settings_find_it(tmp_path: Path) -> None:
    environ = environ_of(tmp_path, HASHEE_AGENT_ID="", **NO_KEYS)
    arguments = ("keys", "generate", "--keystore", "--agent-id", AGENT_ID)
    first = run(*arguments, environ=environ, cwd=tmp_path)
    path = tmp_path / ".hashee" / AGENT_ID / "keystore.json"
    written = path.read_bytes()
    assert (first.returncode, first.stderr) == (0, "")
    second = run(*arguments, environ=environ, cwd=tmp_path)
    assert (second.returncode, second.stderr) == (1, f"Error: {path} is there already; it is left as it is\n")
    assert files_under(tmp_path) == {str(path): written}
    assert run("check-settings", environ=environ_of(tmp_path, **NO_KEYS), cwd=tmp_path).returncode == 0
    unnamed = run("keys", "generate", "--keystore", environ=environ, cwd=tmp_path)
    assert (unnamed.returncode, unnamed.stderr.startswith("hashee-agent: HASHEE_AGENT_ID is not set")) == (78, True)


def test_show_prints_public_keys_and_fingerprint_and_no_private_key(tmp_path: Path) -> None:
    done = run("keys", "show", environ=environ_of(tmp_path), cwd=tmp_path)
    identity = IdentityKeys.from_private(bytes(range(32)), bytes(range(32, 64)))
    words = [WORDS[byte] for byte in identity.public.fingerprint(AGENT_ID)]
    assert words == [word for word in re.findall(r"[a-z]+", done.stdout) if word in words]
    assert base64.b64encode(identity.public.agreement_key).decode() in done.stdout
    assert base64.b64encode(identity.public.signing_key).decode() in done.stdout
    assert "found in     HASHEE_X25519_PRIVATE_BASE64" in done.stdout
    assert X25519_PRIVATE not in done.stdout
    assert ED25519_PRIVATE not in done.stdout


def test_bus_prints_the_key_of_the_given_or_the_kept_secret_and_makes_none(tmp_path: Path) -> None:
    missing = run("keys", "bus", environ=environ_of(tmp_path), cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "store.secret is not there yet" in missing.stderr
    assert files_under(tmp_path) == {}
    line = f"HASHEE_BUS_KEY={base64.b64encode(StoreKeys.derive(bytes(range(64, 96))).bus.export()).decode()}\n"
    given = run("keys", "bus", environ=environ_of(tmp_path, HASHEE_STORE_KEY=STORE_KEY), cwd=tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "store.secret").write_bytes(bytes(range(64, 96)))
    assert run("keys", "bus", environ=environ_of(tmp_path), cwd=tmp_path).stdout == given.stdout == line


def test_a_backup_brings_keys_and_store_secret_back_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "state").mkdir(parents=True)
    there.mkdir()
    (here / "state" / "store.secret").write_bytes(bytes(range(32)))
    backup = tmp_path / "agent.backup"
    made = run("keys", "backup", str(backup), environ=with_passphrase(here), cwd=here)
    assert (made.returncode, made.stderr, backup.stat().st_mode & 0o777) == (0, "", 0o600)
    again = run("keys", "backup", str(backup), environ=with_passphrase(here), cwd=here)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)

    wrong = run("keys", "restore", str(backup), environ=with_passphrase(there, "Blaue"), cwd=there)
    assert (wrong.returncode, wrong.stderr) == (1, "Error: the passphrase is wrong, or the backup has been changed\n")
    assert not (there / "state").exists()
    assert not (there / ".hashee").exists()

    restored = run("keys", "restore", str(backup), environ=with_passphrase(there, HASHEE_AGENT_ID=""), cwd=there)
    assert (restored.returncode, restored.stderr) == (0, "")
    assert (there / "state" / "store.secret").read_bytes() == bytes(range(32))
    written = [there / "state" / "store.secret", there / ".hashee" / AGENT_ID / "keystore.json"]
    assert [path.stat().st_mode & 0o777 for path in written] == [0o600, 0o600]
    shown = [
        run("keys", "show", environ=environ, cwd=tmp_path).stdout.partition("found in")[0]
        for environ in (environ_of(here), environ_of(there, **NO_KEYS))
    ]
    assert shown[0] == shown[1]


def test_a_restore_puts_nothing_in_the_place_of_something_else_unless_told_and_then_keeps_it(tmp_path: Path) -> None:
    state_dir, backup = tmp_path / "state", tmp_path / "agent.backup"
    state_dir.mkdir()
    (state_dir / "store.secret").write_bytes(bytes(32))
    environ = with_passphrase(tmp_path)
    assert run("keys", "backup", str(backup), environ=environ, cwd=tmp_path).returncode == 0
    (state_dir / "store.secret").write_bytes(b"\x01" * 31)  # another one, and cut short
    before = files_under(tmp_path)
    refused = run("keys", "restore", str(backup), environ=environ, cwd=tmp_path)
    assert (refused.returncode, "store.secret: there is something else" in refused.stderr) == (1, True)
    assert files_under(tmp_path) == before
    assert run("keys", "restore", "--force", str(backup), environ=environ, cwd=tmp_path).returncode == 0
    assert (state_dir / "store.secret").read_bytes() == bytes(32)
    [kept] = state_dir.glob("store.secret.before-*")
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"\x01" * 31, 0o600)
    same = run("keys", "restore", str(backup), environ=environ, cwd=tmp_path)
    assert (same.returncode, same.stdout.count("is there already, the same")) == (0, 2)


def test_a_restore_for_another_agent_writes_nothing(tmp_path: Path) -> None:
    backup = tmp_path / "agent.backup"
    assert run("keys", "backup", str(backup), environ=with_passphrase(tmp_path), cwd=tmp_path).returncode == 0
    other = with_passphrase(tmp_path, HASHEE_AGENT_ID="01906abc-0000-7000-8000-000000000002")
    done = run("keys", "restore", str(backup), environ=other, cwd=tmp_path)
    assert (done.returncode, "names another" in done.stderr) == (1, True)
    assert not (tmp_path / "state").exists()


@contextmanager
def terminal(*arguments: str, environ: dict[str, str], cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command on a terminal of its own; the other end of it."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environ,
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no thread runs here yet
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def shown_until(terminal_fd: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(terminal_fd, 4096).decode()
    return shown


def test_the_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    backup = tmp_path / "agent.backup"
    with terminal("keys", "backup", str(backup), environ=environ_of(tmp_path), cwd=tmp_path) as (process, ours):
        shown = shown_until(ours, "Passphrase:")
        os.write(ours, f"{PASSPHRASE}\n".encode())
        shown += shown_until(ours, "confirmation:")
        os.write(ours, f"{PASSPHRASE}\n".encode())
        shown += shown_until(ours, "holds the keys")
        assert process.wait(10) == 0
    assert PASSPHRASE not in shown
    done = run("keys", "restore", str(backup), environ=with_passphrase(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_terminal_and_without_a_file_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("keys", "backup", "b", environ=environ_of(tmp_path), cwd=tmp_path)
    assert (done.returncode, "HASHEE_BACKUP_PASSPHRASE_FILE" in done.stderr) == (1, True)


async def test_a_running_supervisor_makes_a_new_signed_prekey_when_asked(tmp_path: Path) -> None:
    names, keys = Keys(AGENT_ID), StoreKeys.derive(bytes(range(32)))
    device = LocalDevice(AGENT_ID, AGENT_ID, IdentityKeys.generate(os.urandom))
    with redis_server(tmp_path) as url:
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            rest, vault = FakeRest(), Vault(client, names, keys.state)
            prekeys = OwnPrekeys(
                vault,
                names.signed_prekeys,
                names.one_time_prekeys,
                device=device,
                rest=rest,
                on_kept=lambda _: None,
                epoch=lambda: 0,
                pauses=Pauses(prekeys=0.1, prekeys_wish=0.1),
            )
            nursery.start_soon(prekeys.keep, Metrics())
            with waiting_for("the first prekeys to be published", 5):
                await prekeys.published.wait()
            await client.command("SET", names.reclaimer, "the supervisor of this test")
            ask = [sys.executable, "-m", "supervisor", "keys", "rotate-prekeys"]
            with waiting_for("`keys rotate-prekeys` to end", 15):
                done = await trio.run_process(ask, env=environ, capture_stdout=True, stdin=b"")
            assert done.stdout == b"signed prekey 2 is made and goes to the relay\n"
            assert await vault.prekey(names.signed_prekeys, 1) is not None  # for what is on its way
            with waiting_for("the signed prekey to be replaced at the relay", 5):
                while signed_id(rest) != 2:
                    await trio.sleep(0.01)
            assert await prekeys.publish() > 0
            assert signed_id(rest) == 2  # once is enough
            nursery.cancel_scope.cancel()


async def test_without_a_supervisor_the_wish_is_kept_for_the_next_one(tmp_path: Path) -> None:
    names, keys = Keys(AGENT_ID), StoreKeys.derive(bytes(range(32)))
    device = LocalDevice(AGENT_ID, AGENT_ID, IdentityKeys.generate(os.urandom))
    with redis_server(tmp_path) as url:
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        async with open_redis(url) as client:
            rest = FakeRest()

            def started() -> OwnPrekeys:
                vault = Vault(client, names, keys.state)
                return OwnPrekeys(
                    vault,
                    names.signed_prekeys,
                    names.one_time_prekeys,
                    device=device,
                    rest=rest,
                    on_kept=lambda _: None,
                    epoch=lambda: 0,
                )

            await started().publish()
            done = run("keys", "rotate-prekeys", environ=environ, cwd=tmp_path)
            assert (done.returncode, done.stdout.startswith("noted: ")) == (0, True)
            for _ in range(2):
                await started().publish()
                assert signed_id(rest) == 2


def signed_id(rest: FakeRest) -> object:
    signed = rest.registered[-1]["signed_prekey"]
    assert isinstance(signed, dict)
    return signed["id"]
