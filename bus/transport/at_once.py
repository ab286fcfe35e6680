"""Asks many questions at once; the client sends them together."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from bus.transport.wire import RedisFailed

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def all_of(ask: Callable[[Item], Awaitable[Answer]], items: Sequence[Item]) -> list[Answer]:
    """Returns the answers, in the order of `items`. Raises RedisFailed, after all others have their answers."""
    answers: dict[int, Answer] = {}
    problems: list[RedisFailed] = []

    async def one(at: int, item: Item) -> None:
        try:
            answers[at] = await ask(item)
        except RedisFailed as problem:
            problems.append(problem)

    async with trio.open_nursery() as nursery:
        for at, item in enumerate(items):
            nursery.start_soon(one, at, item)
    if problems:
        raise problems[0]
    return [answers[at] for at in range(len(items))]
