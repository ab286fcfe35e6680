"""`hashee-agent grants`: a changed pair of keys is held until somebody decides, and the decision stands in the ledger."""

import os
from pathlib import Path

import pytest

from bus.steps.seal import StoreSeal
from bus.steps.vault import Vault, Versioned
from bus.steps.write_count import WriteCount
from bus.transport.client import open_redis
from crypto.grants import Grant, KeyChangePolicy, Status
from crypto.identity import IdentityKeys
from crypto.strict_base64 import encode
from supervisor.cli.grants import FIRST, PAGE
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.owners import Owner, Owners
from supervisor.peers.retry_triggers import RetryTriggers
from supervisor.relay.frames import Relation
from tests.redis_server import redis_server
from tests.supervisor.cli.keys.running import NAMES, environ_of, run
from tests.supervisor.doubles import FakeRest

ADA = "01906abc-0000-7000-8000-0000000000a1"
STORE_KEY = encode(bytes(range(32)))


def shown(identity: IdentityKeys) -> Relation:
    public = identity.public
    return Relation(ADA, public_key=encode(public.agreement_key), signing_public_key=encode(public.signing_key))


@pytest.mark.parametrize("decision", ["accept", "refuse"])
async def test_a_changed_pair_is_held_until_the_operator_decides(tmp_path: Path, decision: str) -> None:
    first, second = IdentityKeys.generate(os.urandom), IdentityKeys.generate(os.urandom)
    with redis_server(tmp_path) as url:
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        async with open_redis(url) as client:
            keys = await StoreSeal(client, NAMES).adopt(bytes(range(32)))
            vault = Vault(client, NAMES, keys.state)
            ledger = GrantLedger(vault, keys.ledger, tmp_path / "state")
            owners = Owners(
                vault, ledger, FakeRest(), KeyChangePolicy.HOLD, write_count=WriteCount(), triggers=RetryTriggers()
            )
            for identity in (first, second):
                await owners.note(shown(identity), "active")
            for how in ((), ("--changed",), (ADA,)):
                listed = run("grants", "list", *how, environ=environ, cwd=tmp_path)
                assert f"grants accept {ADA}" in listed.stdout
            done = run("grants", decision, ADA, environ=environ, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            value = (await vault.owner(ADA)).value
            assert value is not None
            assert Owner.decode(value).pinned == (second if decision == "accept" else first).public
            assert await ledger.verify() is None
            assert run("grants", "list", "--changed", environ=environ, cwd=tmp_path).stdout == ""
        again = run("grants", decision, ADA, environ=environ, cwd=tmp_path)
        assert (again.returncode, "wait for a decision" in again.stderr) == (1, True)


async def test_everybody_is_listed_however_many_pages_they_are(tmp_path: Path) -> None:
    people = [f"person-{number:05}" for number in range(2 * PAGE + 1)]
    with redis_server(tmp_path) as url:
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        async with open_redis(url) as client:
            vault = Vault(client, NAMES, (await StoreSeal(client, NAMES).adopt(bytes(range(32)))).state)
            for person in people:
                row = Owner(Grant(person, Status.ACTIVE, 1, 1), 0)
                assert await vault.put_owner(person, Versioned(0, None), row.encode())
            await client.command("HSET", NAMES.owner(people[3]), "b", b"damaged")
            await client.command("SET", NAMES.owner(people[4]), "of another type")
        listed = run("grants", "list", "--all", environ=environ, cwd=tmp_path)
        first = run("grants", "list", environ=environ, cwd=tmp_path)
        changed = run("grants", "list", "--changed", environ=environ, cwd=tmp_path)
        named = run("grants", "list", people[-1], people[0], environ=environ, cwd=tmp_path)
        nobody = run("grants", "list", "nobody", environ=environ, cwd=tmp_path)
        both = run("grants", "list", "nobody", "--all", environ=environ, cwd=tmp_path)
    assert people_in(listed.stdout) == people
    assert NAMES.owner(people[3]) in listed.stdout + listed.stderr
    unreadable = [line.split()[0] for line in listed.stdout.splitlines() if "CANNOT BE READ" in line]
    assert unreadable == people_in(changed.stdout) == people[3:5]
    assert people_in(first.stdout) == people[:FIRST]
    assert f"and {2 * PAGE + 1 - FIRST} more" in first.stderr
    assert (people_in(named.stdout), "more" in named.stderr) == ([people[-1], people[0]], False)
    assert (nobody.returncode, "nobody has a grant under nobody" in nobody.stderr, both.returncode) == (1, True, 2)


async def test_a_store_whose_shared_keys_are_damaged_is_said_with_what_helps(tmp_path: Path) -> None:
    """`WRONGTYPE Operation against a key …` names no key and helps nobody."""
    with redis_server(tmp_path) as url:
        environ = environ_of(tmp_path, HASHEE_REDIS_URL=url, HASHEE_STORE_KEY=STORE_KEY)
        async with open_redis(url) as client:
            await client.command("SET", NAMES.owners, "of another type")
            await client.command("SET", NAMES.prekey_state, "of another type")
        of_prekeys = run("keys", "rotate-prekeys", environ=environ, cwd=tmp_path)
        refused = run("grants", "list", environ=environ, cwd=tmp_path)
        looked = run("doctor", environ=environ, cwd=tmp_path)
    for one in (refused, of_prekeys):
        assert one.returncode == 1
        assert "hashee-agent doctor names it" in one.stderr
        assert "docs/runbooks/redis.md" in one.stderr
    assert f"{NAMES.owners} is a string and must be a set" in " ".join(looked.stdout.split())


def people_in(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("person-")]
