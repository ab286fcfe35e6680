"""Shows "typing…" while a handler works that has not said anything yet."""

import trio

from workers.talk.sending import Sending

# PROTOCOL §2: a typing indicator is shown for 5 s.
TYPING_RENEWAL_SECONDS = 4.0
# The end of typing is tried for so long: a person's client clears the indicator by itself, and a Redis that is away must not hold us.
TYPING_STOP_SECONDS = 1.0


async def keep_typing(sending: Sending) -> None:
    """Shows that somebody types until the run says something, or shows it by itself; to be cancelled when the run has ended."""
    if sending.has_spoken:
        return
    try:
        while not sending.has_spoken:
            await sending.show_typing(active=True)
            await trio.sleep(TYPING_RENEWAL_SECONDS)
    finally:
        if not sending.has_said:
            await stop_typing(sending)


async def stop_typing(sending: Sending) -> None:
    """Ends the indicator, also in a run that was cancelled; best effort."""
    with trio.move_on_after(TYPING_STOP_SECONDS, shield=True):
        await sending.show_typing(active=False)
