"""What the relay does not tell is remembered in bounds, and a group that is not told holds up those of its members who wait for it."""

from trio.testing import MockClock

from supervisor.peers.untold import IN_VAIN_SECONDS, WAIT_AT_RELAY_SECONDS, Untold


async def test_of_more_than_so_many_nothing_waits() -> None:
    untold = Untold(most=2)
    for thing in ("one", "two", "three"):
        untold.note(thing)
    assert [untold.is_paused(thing) for thing in ("one", "two", "three")] == [True, True, False]
    assert untold.is_long("three"), "so it is in quarantine"
    untold.told("one")
    untold.note("three")
    assert not untold.is_long("three")


async def test_the_pauses_grow_to_a_minute_and_begin_anew_once_it_is_told() -> None:
    untold = Untold()
    assert [untold.note("one") for _ in range(9)] == [*IN_VAIN_SECONDS, IN_VAIN_SECONDS[-1], IN_VAIN_SECONDS[-1]]
    untold.told("one")
    assert untold.note("one") == IN_VAIN_SECONDS[0]


async def test_what_nobody_asks_for_any_more_leaves_room(mock_clock: MockClock) -> None:
    untold = Untold(most=1)
    untold.note("one")
    mock_clock.jump(IN_VAIN_SECONDS[0] + WAIT_AT_RELAY_SECONDS)
    untold.note("two")
    assert untold.is_paused("two")
    assert untold.is_long("one")


async def test_a_group_that_is_not_told_holds_up_whose_messages_need_it_and_nobody_else(mock_clock: MockClock) -> None:
    untold = Untold()
    untold.note("group")
    untold.needs_group("Ada", "group")
    assert (untold.holds_up("Ada"), untold.holds_up("Ben")) == (True, False)
    assert not untold.is_paused("Ada"), "she herself may be asked for"
    mock_clock.jump(IN_VAIN_SECONDS[0])
    assert not untold.holds_up("Ada")
    untold.note("group")
    assert untold.holds_up("Ada")
    untold.told("group")
    assert not untold.holds_up("Ada")
