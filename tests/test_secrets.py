"""Promise P5: no plaintext and no private key in Redis' files, in any process's output, or in a worker's environment."""

import base64
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_kills import kill_redis, kill_supervisor
from tests.world import world

KEYS = ("HASHEE_X25519_PRIVATE_BASE64", "HASHEE_ED25519_PRIVATE_BASE64")


def spellings(secret: bytes) -> Iterator[bytes]:
    """Raw, hex, and base64 at each of the three places where it can begin in a longer text."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for skipped in range(3):
        inside = base64.b64encode(bytes(skipped) + secret)
        core = inside[4 if skipped else 0 : len(inside) - 4]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


def found_in(directory: Path, needles: list[bytes]) -> list[str]:
    """Which file holds which needle (by number, so that a failure shows no secret either)."""
    return [
        f"{path.relative_to(directory)}: needle {number}"
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for number, needle in enumerate(needles)
        if needle in path.read_bytes()
    ]


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.fixture
def words() -> list[str]:
    return [
        f"zanzibar {secrets.token_hex(8)}",
        f"/stream mombasa {secrets.token_hex(8)}",
        f"lamu {secrets.token_hex(8)}",
    ]


async def test_neither_plaintext_nor_private_keys_are_written_anywhere(tmp_path: Path, words: list[str]) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], words[0])
        await kill_supervisor(w)
        await ada.say(w.conversations[ada], words[1])
        await kill_redis(w)
        await ada.say(w.conversations[ada], words[2])
        await w.all_answered({ada: [f"echo: {word.removeprefix('/stream ')}" for word in words]})
        private_keys = [base64.b64decode(w.environment[name]) for name in KEYS]
        conversation = w.conversations[ada].encode()
        for pid in w.worker_pids():
            environment = environment_of(pid)
            assert not [needle for key in private_keys for needle in spellings(key) if needle in environment]
            assert b"HASHEE_AGENT_TOKEN" not in environment
    plaintexts = [word.removeprefix("/stream ").encode() for word in words]
    assert found_in(tmp_path / "state", [conversation]), "the scan does not see what Redis writes"
    assert found_in(tmp_path, [needle for secret in (*private_keys, *plaintexts) for needle in spellings(secret)]) == []


def test_the_scan_finds_a_secret_in_every_spelling(tmp_path: Path) -> None:
    secret = os.urandom(32)
    for number in range(3):
        (tmp_path / f"base64 {number}").write_bytes(base64.b64encode(b"x" * number + secret + b"tail"))
    (tmp_path / "hex").write_text(secret.hex(), encoding="utf-8")
    (tmp_path / "raw").write_bytes(b"before" + secret)
    files = {line.partition(":")[0] for line in found_in(tmp_path, list(spellings(secret)))}
    assert files == {"base64 0", "base64 1", "base64 2", "hex", "raw"}
