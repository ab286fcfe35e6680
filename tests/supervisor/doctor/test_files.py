"""Who can read what: a mode that is too open is a finding with the command that closes it."""

import base64
import os
from pathlib import Path

import pytest

from crypto.identity import IdentityKeys
from crypto.keystore import Keystore
from supervisor.doctor.files import look_at_files
from supervisor.doctor.settings import look_at_settings
from supervisor.settings.env_files import add_env_file
from supervisor.settings.keystore_files import write_keystore
from tests.supervisor.doctor.builders import case_of, named, verdicts
from tests.supervisor.settings.environment import AGENT_ID, TOKEN, process_environ

pytestmark = pytest.mark.pure


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    (made / "store.secret").write_bytes(os.urandom(32))
    (made / "store.secret").chmod(0o600)
    return made


def test_what_only_its_owner_can_open_is_well(state_dir: Path) -> None:
    found = verdicts(look_at_files(case_of(state_dir)))
    assert found == {"files: state directory": "ok", "files: store secret": "ok"}


@pytest.mark.parametrize(("name", "mode", "remedy"), [("", 0o755, "chmod 700"), ("store.secret", 0o644, "chmod 600")])
def test_what_others_can_open_is_bad_and_the_command_closes_it(
    state_dir: Path, name: str, mode: int, remedy: str
) -> None:
    path = state_dir / name if name else state_dir
    path.chmod(mode)
    finding = named(look_at_files(case_of(state_dir)))[f"files: {'store secret' if name else 'state directory'}"]
    assert (finding.verdict, finding.remedy) == ("bad", f"{remedy} {path}")
    assert f"{mode:04o}" in finding.said


def test_a_keystore_that_others_can_read_is_bad(state_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keystore.json"
    write_keystore(path, Keystore(AGENT_ID, IdentityKeys.from_private(bytes(range(32)), bytes(range(32, 64)))))
    case = case_of(state_dir, HASHEE_KEYSTORE=str(path))
    assert named(look_at_files(case))["files: keystore"].verdict == "ok"
    path.chmod(0o640)
    assert named(look_at_files(case))["files: keystore"].remedy == f"chmod 600 {path}"


def test_a_file_with_settings_that_was_opened_to_others_is_bad(state_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("HASHEE_LOG_LEVEL=info\n", encoding="utf-8")
    path.chmod(0o600)
    environ = process_environ(state_dir)
    add_env_file(path, environ)
    assert named(look_at_files(case_of(state_dir, None, **environ)))["files: env file"].verdict == "ok"
    path.chmod(0o604)
    assert named(look_at_files(case_of(state_dir, None, **environ)))["files: env file"].remedy == f"chmod 600 {path}"


def test_a_secrets_file_that_everybody_can_read_is_a_warning_and_a_missing_one_is_bad(
    state_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN, encoding="ascii")
    environ = {"HASHEE_AGENT_TOKEN": "", "HASHEE_AGENT_TOKEN_FILE": str(path)}
    for mode, verdict in ((0o440, "ok"), (0o644, "warn")):
        path.chmod(mode)
        assert (
            named(look_at_files(case_of(state_dir, None, **environ)))["files: HASHEE_AGENT_TOKEN_FILE"].verdict
            == verdict
        )
    path.unlink()
    case = case_of(state_dir, None, **environ)
    assert named(look_at_files(case))["files: HASHEE_AGENT_TOKEN_FILE"].verdict == "bad"
    assert named(look_at_settings(case))["settings: readable"].said.startswith("HASHEE_AGENT_TOKEN_FILE ")


def test_a_store_secret_that_is_missing_damaged_or_half_rotated_is_bad(state_dir: Path) -> None:
    secret = state_dir / "store.secret"
    (state_dir / "store.secret.next").write_bytes(os.urandom(32))
    assert named(look_at_files(case_of(state_dir)))["files: rotation"].remedy == "hashee-agent keys rotate-store"
    secret.write_bytes(b"short")
    assert named(look_at_files(case_of(state_dir)))["files: store secret's length"].verdict == "bad"
    secret.unlink()
    assert named(look_at_files(case_of(state_dir)))["files: store secret"].verdict == "unknown"
    files = state_dir / "redis" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.incr.aof").write_bytes(b"*1")
    missing = named(look_at_files(case_of(state_dir)))["files: store secret"]
    assert (missing.verdict, missing.remedy) == ("bad", "hashee-agent keys restore FILE")
    given = base64.b64encode(os.urandom(32)).decode()
    assert "files: store secret" not in named(look_at_files(case_of(state_dir, HASHEE_STORE_KEY=given)))


def test_settings_that_cannot_be_read_are_named_and_the_others_are_used(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    case = case_of(tmp_path / "state", HASHEE_AGENT_TOKEN="wrong", HASHEE_DRAIN_SECONDS="7")
    found = named(look_at_settings(case))
    assert found["settings: readable"].said.startswith("HASHEE_AGENT_TOKEN is malformed: expected")
    backups = named(look_at_settings(case_of(tmp_path, HASHEE_BACKUP_RECIPIENTS="age1qqqq")))
    assert backups["settings: readable"].said.startswith("HASHEE_BACKUP_RECIPIENTS is malformed")
    assert found["settings: state directory"].verdict == "bad"
    assert (case.token, case.drain_seconds, case.agent_id) == (None, 7.0, AGENT_ID)


def test_a_log_that_quotes_conversations_is_named(state_dir: Path) -> None:
    assert "settings: errors" not in named(look_at_settings(case_of(state_dir)))
    found = named(look_at_settings(case_of(state_dir, HASHEE_SHOW_ERRORS="on")))["settings: errors"]
    assert (found.verdict, "HASHEE_SHOW_ERRORS" in found.remedy) == ("warn", True)
