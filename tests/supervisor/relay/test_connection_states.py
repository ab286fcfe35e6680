"""The states of the connection, walked without one: every move in every state, and what every way through them keeps true."""

import itertools

import pytest

from supervisor.relay.connection_states import HOLDS, MOVES, ImpossibleMove, Move, State, Told, Transition, step

pytestmark = pytest.mark.pure

LEADS_TO = """
               try         accept     refuse   doubt         trust         lose          close
disconnected   connecting  -          -        disconnected  disconnected  disconnected  closed
connecting     -           connected  refused  -             -             disconnected  closed
refused        connecting  -          -        -             -             refused       closed
connected      -           -          -        doubted       -             disconnected  draining
doubted        -           -          -        doubted       connected     disconnected  draining
draining       -           -          -        draining      draining      closed        draining
closed         -           -          -        closed        closed        closed        closed
"""


def expected() -> dict[tuple[State, Move], State | None]:
    [head, *rows] = [line.split() for line in LEADS_TO.strip().splitlines()]
    return {
        (State(state), Move(move)): None if to == "-" else State(to)
        for state, *cells in rows
        for move, to in zip(head, cells, strict=True)
    }


def possible() -> list[tuple[State, Move, Transition]]:
    return [(state, move, found) for state, moves in MOVES.items() for move, found in moves.items()]


@pytest.mark.parametrize(("state", "move"), list(itertools.product(State, Move)))
def test_each_move_in_each_state_leads_where_it_should_or_is_an_error(state: State, move: Move) -> None:
    to = expected()[state, move]
    if to is None:
        with pytest.raises(ImpossibleMove, match=f"is {state.value}: {move.value}"):
            step(state, move)
    else:
        assert step(state, move).to is to


def test_each_state_is_shown_with_one_of_the_words_of_the_status_page() -> None:
    assert {state: HOLDS[state].shown for state in State} == {
        State.DISCONNECTED: "disconnected",
        State.CONNECTING: "connecting",
        State.REFUSED: "disconnected",
        State.CONNECTED: "connected",
        State.DOUBTED: "connected",
        State.DRAINING: "connected",
        State.CLOSED: "disconnected",
    }


def test_nothing_is_begun_where_nothing_may_be_sent_and_nothing_sent_where_nobody_is_connected() -> None:
    assert [state for state in State if HOLDS[state].is_trusted] == [State.CONNECTED]
    assert [state for state in State if HOLDS[state].may_send] == [State.CONNECTED, State.DOUBTED]
    assert [state for state in State if HOLDS[state].is_connected] == [State.CONNECTED, State.DOUBTED, State.DRAINING]


@pytest.mark.parametrize(("state", "move", "found"), possible())
def test_the_slot_is_told_of_each_beginning_and_each_end_of_a_connection(
    state: State, move: Move, found: Transition
) -> None:
    was, is_now = HOLDS[state].is_connected, HOLDS[found.to].is_connected
    assert (found.told is Told.CONNECTED) == (is_now and not was)
    assert (found.told is Told.DISCONNECTED) == (was and not is_now)


def test_on_no_way_do_others_count_on_a_connection_that_is_not_there() -> None:
    """Walks all that can be reached, together with what the slot was told last: CONNECTED and HEARD are what others count on."""
    seen, left = set[tuple[State, bool]](), [(State.DISCONNECTED, False)]
    while left:
        state, is_counted_on = left.pop()
        if (state, is_counted_on) in seen:
            continue
        seen.add((state, is_counted_on))
        assert HOLDS[state].is_connected or not is_counted_on, state
        assert is_counted_on or not HOLDS[state].is_trusted, state
        for found in MOVES[state].values():
            told = is_counted_on if found.told is None else found.told in (Told.CONNECTED, Told.HEARD)
            left.append((found.to, told))
    assert {state for state, _ in seen} == set(State)


def test_closed_is_closed_for_good() -> None:
    assert {found.to for found in MOVES[State.CLOSED].values()} == {State.CLOSED}
