"""Where the supervisor finds its private keys: the environment first, then a keystore that only its owner can read."""

import os
from pathlib import Path

import pytest

from bus.settings.reader import SettingsError
from crypto.identity import IdentityKeys
from crypto.keystore import Keystore, KeystoreError, encode_keystore
from supervisor.settings.keeper import KeeperSettings
from supervisor.settings.keystore_files import BackupContents, decode_contents, encode_contents, write_keystore
from supervisor.settings.secrets import Secret
from supervisor.settings.supervisor import SupervisorSettings
from tests.supervisor.settings.environment import AGENT_ID, ED25519_PRIVATE, agent_environ

pytestmark = pytest.mark.pure

NO_KEYS = {"HASHEE_X25519_PRIVATE_BASE64": "", "HASHEE_ED25519_PRIVATE_BASE64": ""}
OTHER_AGENT = "01906abc-0000-7000-8000-000000000002"


def identity() -> IdentityKeys:
    return IdentityKeys.generate(os.urandom)


def keystore_in(home: Path, keys: IdentityKeys, *, agent_id: str = AGENT_ID) -> Path:
    path = home / ".hashee" / AGENT_ID / "keystore.json"
    write_keystore(path, Keystore(agent_id, keys))
    return path


def read(**environ: str) -> SupervisorSettings:
    return SupervisorSettings.from_environ(agent_environ(**{**NO_KEYS, **environ}))


def test_without_keys_in_the_environment_the_keystore_in_the_home_is_read(tmp_path: Path) -> None:
    keys = identity()
    path = keystore_in(tmp_path, keys)
    settings = read(HOME=str(tmp_path))
    found = IdentityKeys.from_private(settings.x25519_private.reveal(), settings.ed25519_seed.reveal())
    assert found.public == keys.public
    assert [part.stat().st_mode & 0o777 for part in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]


def test_a_named_keystore_goes_before_the_one_in_the_home(tmp_path: Path) -> None:
    named, keys = tmp_path / "elsewhere.json", identity()
    keystore_in(tmp_path, identity())
    write_keystore(named, Keystore(AGENT_ID, keys))
    settings = read(HOME=str(tmp_path), HASHEE_KEYSTORE=str(named))
    assert settings.x25519_private == Secret(keys.private_halves()[0])


def test_keys_in_the_environment_go_before_any_keystore_and_are_never_mixed_with_one(tmp_path: Path) -> None:
    keystore_in(tmp_path, identity())
    assert SupervisorSettings.from_environ(agent_environ(HOME=str(tmp_path))) == SupervisorSettings.from_environ(
        agent_environ(HOME=str(tmp_path), HASHEE_KEYSTORE="/nowhere")
    )
    with pytest.raises(SettingsError, match=r"^HASHEE_X25519_PRIVATE_BASE64 is not set"):
        read(HOME=str(tmp_path), HASHEE_ED25519_PRIVATE_BASE64=ED25519_PRIVATE)


def test_a_keystore_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = keystore_in(tmp_path, identity())
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
            read(HOME=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{}", "is not the JSON that"), (None, "No such file"), ("another agent's", f"is of agent {OTHER_AGENT}")],
)
def test_a_keystore_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    named = tmp_path / "keystore.json"
    if isinstance(content, str):
        content = encode_keystore(Keystore(OTHER_AGENT, identity()))
    if content is not None:
        named.touch(mode=0o600)
        named.write_bytes(content)
    with pytest.raises(SettingsError, match=reason) as caught:
        read(HASHEE_KEYSTORE=str(named))
    assert caught.value.name == "HASHEE_KEYSTORE"
    assert caught.value.others == ()


def test_neither_keys_nor_keystore_names_both_missing_keys(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(HOME=str(tmp_path))
    assert (caught.value.name, caught.value.others) == (
        "HASHEE_X25519_PRIVATE_BASE64",
        ("HASHEE_ED25519_PRIVATE_BASE64",),
    )


def test_the_keeper_does_not_read_the_keystore() -> None:
    KeeperSettings.from_environ(agent_environ(**NO_KEYS, HASHEE_KEYSTORE="/nowhere/keystore.json"))


def test_what_a_backup_holds_comes_back_as_it_was() -> None:
    keys = identity()
    for secret in (None, Secret(bytes(range(32)))):
        contents = BackupContents(Keystore(AGENT_ID, keys), secret)
        assert decode_contents(encode_contents(contents)) == contents
        assert "range" not in repr(contents)
    for wrong in (b"", b"{}", b'{"format":"later","keystore":"","store_secret":null}'):
        with pytest.raises(KeystoreError):
            decode_contents(wrong)
