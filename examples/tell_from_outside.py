"""A program of the owner's own, beside the agent, tells somebody something once: `python tell_from_outside.py CONVERSATION KEY TEXT`."""

import sys

import trio

from workers import Outside


async def tell() -> None:
    _, to, key, text = sys.argv
    async with Outside() as it:
        await it.send(to, text, key=key)


if __name__ == "__main__":
    trio.run(tell)
