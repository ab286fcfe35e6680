"""Rule 17: a copy of the state directory brings back all that stands in it, and not the witness in memory. Real servers, real files."""

import shutil
from pathlib import Path

import pytest

from bus.records.sealing import StoreKeys
from host import proc
from supervisor.recovery import witness
from supervisor.recovery.time_guard import FILE
from supervisor.recovery.witness import MOST_SUPERVISORS, NoWitness, Testimony, Witness, open_witness, witness_name
from supervisor.settings.places import memory_places_of
from tests.memory import MEMORY, own_memory
from tests.redis_server import RedisServer, running_redis
from tests.supervisor.builders import Core, open_core, reply_to_next, sending
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import Person
from tests.supervisor.recovery.test_time_guard import FILES, confirmed, look_until_answered


async def talk(core: Core, person: Person, text: str, seq: int) -> None:
    """A question and its answer."""
    await core.push(person.say(text, seq=seq))
    count = len(core.connection.sent)
    await reply_to_next(core, f"answer to {text}")
    await confirmed(core, (await core.connection.wait_sent(count + 1))[-1], seq + 1)


def copy_of(directory: Path) -> Path:
    """All that stands in the state directory, as `cp -a` brings it while the agent runs."""
    kept = directory / "copy"
    shutil.copytree(directory / FILES, kept / FILES)
    shutil.copy2(directory / FILE, kept / FILE)
    return kept


def put_back(kept: Path, directory: Path, server: RedisServer) -> None:
    server.kill()
    shutil.rmtree(directory / FILES)
    shutil.copytree(kept, directory, dirs_exist_ok=True)
    server.start()


async def talked_and_put_back(tmp_path: Path, server: RedisServer) -> None:
    """A copy is made; one more question is answered; all ends; the copy is put back."""
    rest = FakeRest()
    async with open_core(server.url, rest) as core:
        await core.guard.begin()
        await core.prekeys.publish()
        core.connection.connect()
        ada = Person(rest)
        ada.meet()
        async with sending(core):
            await talk(core, ada, "one", 1)
            await core.guard.look_again()
            kept = copy_of(tmp_path)
            await talk(core, ada, "two", 3)
            await core.guard.look_again()
    put_back(kept, tmp_path, server)


async def test_rule_17_a_copy_put_back_on_the_same_boot_went_back(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        await talked_and_put_back(tmp_path, server)
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 1
            assert core.count("redis_went_back_total") == 1
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 1
            assert core.count("redis_went_back_total") == 0, "once is enough"


async def test_rule_17_without_a_witness_every_start_of_redis_is_doubted_and_raises_no_alarm(tmp_path: Path) -> None:
    """A container has none after it was started again: its volume may have been put back, and mostly was not."""
    with running_redis(tmp_path) as server:
        await talked_and_put_back(tmp_path, server)
        shutil.rmtree(tmp_path / "witness")
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 1
            assert core.count("redis_unproven_total") == 1
            assert core.count("redis_went_back_total") == 0


async def test_rule_17_a_copy_that_was_used_elsewhere_meanwhile_is_not_the_state_that_was_left_here(
    tmp_path: Path,
) -> None:
    """It holds more commits than were witnessed here, and not those of the one that has gone on."""
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            await core.client.command("INCR", core.keys.write_count)
        await elsewhere(tmp_path, server)
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 2
            assert core.count("redis_went_back_total") == 1


async def elsewhere(tmp_path: Path, server: RedisServer) -> None:
    """Another host, with the same state directory and no witness of it."""
    (tmp_path / "witness").rename(tmp_path / "witness of this host")
    server.kill()
    server.start()
    async with open_core(server.url, FakeRest()) as core:
        await core.guard.begin()
        await core.client.command("HINCRBY", core.keys.continuity, "commits", 100)
        assert core.write_count.epoch == 1
    shutil.rmtree(tmp_path / "witness")
    (tmp_path / "witness of this host").rename(tmp_path / "witness")
    server.kill()
    server.start()


async def test_rule_17_a_store_of_a_version_without_a_witness_is_doubted_once(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        for epoch_raised in (1, 0, 0):
            async with open_core(server.url, FakeRest()) as core:
                await core.client.command("INCR", core.keys.write_count)
                await core.guard.begin()
                assert core.write_count.epoch == 1
                assert core.count("redis_unproven_total") == epoch_raised
                assert core.count("redis_went_back_total") == 0
            server.kill()
            server.start()


async def test_rule_17_an_upgrade_beside_a_running_version_without_a_witness_is_no_doubt(tmp_path: Path) -> None:
    """The former release is connected and has looked by itself; what it is told of, it would take for a Redis that went back."""
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.client.command("INCR", core.keys.write_count)
            await core.client.command("SET", core.keys.slot(2), "of the former release", "PX", 5000)
            await core.guard.begin()
            assert core.write_count.epoch == 0
            await core.client.command("DEL", core.keys.slot(2))
            await core.guard.look_again()
            assert core.write_count.epoch == 0
        server.kill()
        server.start()
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 0


async def test_rule_17_who_was_killed_between_looking_and_knowing_is_no_alarm(tmp_path: Path) -> None:
    """Redis may name a server whose answer nobody has heard: its name stands in the witness before it is asked."""
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            await core.client.command("INCR", core.keys.write_count)
            server.kill()
            server.start()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(core.write_count, "committed", killed)
                with pytest.raises(InterruptedError):
                    await look_until_answered(core.guard)
        server.kill()
        server.start()
        async with open_core(server.url, FakeRest()) as core:
            await core.guard.begin()
            assert core.write_count.epoch == 0


def killed(_commits: int) -> None:
    raise InterruptedError


def test_what_several_supervisors_have_seen_is_the_highest_of_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    one, other = Witness(tmp_path, "name"), Witness(tmp_path, "name")
    one.looks_at("first")
    one.note(7)
    other.note(5)
    other.looks_at("second")
    for who in (one, other):
        assert who.testimony().commits == 7
        assert set(who.testimony().servers) == {"first", "second"}
    one.close()
    other.close()
    again = Witness(tmp_path, "name")
    again.note(6)
    assert again.testimony().commits == 7, "a lower count changes nothing"
    again.close()


def test_names_of_servers_do_not_grow_for_ever(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    one = Witness(tmp_path, "name")
    for number in range(100):
        one.looks_at(f"{number:040}:{number:040}")
    assert f"{99:040}:{99:040}" in one.testimony().servers
    assert len(one.testimony().servers) == witness.MOST_SERVERS
    one.close()


def test_what_was_written_before_the_host_was_started_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    before = Witness(tmp_path, "name")
    before.looks_at("server")
    before.note(7)
    before.close()
    (tmp_path / "boot_id").write_text("another\n", encoding="utf-8")
    monkeypatch.setattr(proc, "BOOT_ID", tmp_path / "boot_id")
    after = Witness(tmp_path, "name")
    assert after.testimony() == Testimony()
    after.close()


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(OSError, match="others can enter it"):
        Witness(tmp_path, "name")


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "folder" / "name.0").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        Witness(tmp_path / "folder", "name")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(NotADirectoryError):
        Witness(tmp_path / "link", "other")


def test_more_supervisors_than_files_are_told_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    all_of_them = [Witness(tmp_path, "name") for _ in range(MOST_SUPERVISORS)]
    with pytest.raises(OSError, match="16 processes hold it"):
        Witness(tmp_path, "name")
    for one in all_of_them:
        one.close()


def test_only_what_is_in_memory_is_a_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(NoWitness, match="is not in memory"):
        open_witness("name", [tmp_path, tmp_path / "missing"])


def test_a_witness_stands_in_memory_in_a_folder_of_ours(tmp_path: Path) -> None:
    with own_memory() as place:
        one = open_witness("name", [tmp_path, place])
        one.note(3)
        one.close()
        again = open_witness("name", [tmp_path, place])
        assert again.testimony().commits == 3
        again.close()


def test_its_name_tells_nothing_and_is_of_one_agent_on_one_store() -> None:
    keys = StoreKeys.derive(bytes(32))
    names = {witness_name(keys, "one"), witness_name(keys, "two"), witness_name(StoreKeys.derive(b"\1" * 32), "one")}
    assert len(names) == 3
    rotated = StoreKeys.derive(b"\2" * 32, 1).carrying(keys.identifier, keys.ledger)
    assert witness_name(rotated, "one") == witness_name(keys, "one")


def test_where_it_may_stand_is_found_whoever_starts_the_agent() -> None:
    places = memory_places_of({"RUNTIME_DIRECTORY": "/run/hashee-agent:/run/other", "XDG_RUNTIME_DIR": "/run/user/1"})
    assert places[:3] == (Path("/run/hashee-agent"), MEMORY, Path("/run/user/1"))
    assert memory_places_of({"RUNTIME_DIRECTORY": "relative"})[0] == MEMORY
