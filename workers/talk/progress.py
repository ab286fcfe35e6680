"""A card that shows how far something is, for as long as a block runs: `async with chat.progress("Exporting") as bar: await bar.update(40)`.

It changes at most once a second, and less often the longer it runs, since a card has 100 updates; the last one is kept for its end. A second
run of the job shows it anew, under the revisions that follow. How it ended is noted before that is shown and before the handler goes on: a later run
takes the same branch, whatever is pressed meanwhile.
"""

import hashlib
from types import TracebackType
from typing import Final, Literal, Self

import trio

from bus.records.cards import MOST_UPDATES, CardKept
from bus.records.records import GROUP, Reply
from workers.errors import BadCard
from workers.kept.thread import ThreadRun
from workers.talk.cards import CANCEL, Action, Progress, card_payload, update_payload
from workers.talk.sending import Sending

SECONDS_BETWEEN: Final = 1.0
"""Nobody reads more; and the relay takes five messages a second of an agent."""

SHARE_BETWEEN: Final = 0.05
"""Of the time so far: ten minutes make 88 updates, a day fills a card."""

WHOLE: Final = 100.0

DONE: Final = "done"
CANCELLED: Final = "cancelled"
BLOCK: Final = "block:"
"""Begins the names of journal entries that say how a block ended; no step has such a name. One that failed is none of them: a later run tries it again."""

LAST_SHOWN_SECONDS: Final = 1.0
"""For what a stopped run still shows: a Redis that is away must not hold up its end."""


class ProgressBar:
    """Made by `chat.progress()`."""

    def __init__(
        self, sending: Sending, title: str, *, cancel: str | None, key: str | None, thread: ThreadRun | None = None
    ) -> None:
        """`cancel`: what stands on its Stop button; without it there is none. `thread`: in whose journal it stands how it ended."""
        self._thread = thread
        self._name = self._ended = ""
        began_by = sending.job.message
        is_nobodys = (
            not began_by.sender_id and began_by.conversation_type == GROUP
        )  # a reminder's: nobody there may press it
        self._actions = [] if cancel is None or is_nobodys else [Action(CANCEL, cancel)]
        self._scope = trio.CancelScope()
        self._watch = trio.CancelScope()
        self._is_stopped = False
        self._sending = sending
        self._title = title
        self._key = key
        self._shown = Progress(0, "starting", title=title, actions=self._actions)
        self._place = self._card_id = ""
        self._count = 0
        self._is_open = False
        self._began = self._changed = 0.0

    @property
    def id(self) -> str:
        """The card's id."""
        return self._card_id

    @property
    def cancelled(self) -> bool:
        """Whether the Stop button was pressed: the rest of the block is not done."""
        return self._is_stopped

    async def __aenter__(self) -> Self:
        """Shows the card. With a Stop button the block is cancelled when it is pressed."""
        await self.begin()
        self._scope.__enter__()
        return self

    async def begin(self) -> None:
        """Shows the card, and begins to look whether its button was pressed. Where an earlier run has ended the block it ends so again."""
        async with self._sending.turn():
            self._look_how_it_ended()
            self._place = self._sending.take_place(self._key)
            self._card_id = self._sending.card_id(self._place)
            payload = card_payload(self._shown, self._card_id)
            reply = Reply(kind="message", content_type="artifact", payload=payload)
            await self._sending.emit_card(self._place, self._card_id, self._shown.kind, reply)
        self._began = self._changed = trio.current_time()
        self._is_open = True
        if self._ended == CANCELLED:
            self._is_stopped = True
            self._scope.cancel()
        elif self._actions and not self._ended:
            if self._sending.job.continues and self._sending.was_emitted(self._place):
                await self._show(
                    most=MOST_UPDATES - 1
                )  # a press counts for the job that has shown the card, which was another one
            self._sending.helpers.start_soon(self._look_for_stop)

    def _look_how_it_ended(self) -> None:
        if self._thread is not None:
            told = self._key or f"~{hashlib.sha256(self._title.encode()).hexdigest()[:20]}"
            self._name = self._thread.name(f"{BLOCK}{told}")
            self._ended = self._thread.known(self._name)

    async def _look_for_stop(self) -> None:
        with self._watch:
            while not await self._sending.is_stopped(self._card_id):
                await self._sending.until_stop_is_pressed(SECONDS_BETWEEN)
            self._is_stopped = True
            self._scope.cancel()

    async def update(self, percent: float, text: str | None = None) -> None:
        """Shows how far it is, in percent, with a text or the one before; at most once a second. Raises BadCard."""
        if not self._is_open:
            raise BadCard("this progress has ended: call update() inside of its block")
        body = self._shown.body if text is None else text
        self._shown = Progress(percent, "running", title=self._title, body=body, actions=self._actions)
        now = trio.current_time()
        if not self._ended and now - self._changed >= max(SECONDS_BETWEEN, (now - self._began) * SHARE_BETWEEN):
            self._changed = now
            await self._show(most=MOST_UPDATES - 1)
        await trio.lowlevel.checkpoint()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        is_stopped = bool(self._scope.__exit__(kind, error, traceback))
        await self.end(None if is_stopped else error)
        return is_stopped

    async def end(self, error: BaseException | None) -> None:
        """Notes how it ended, and shows it."""
        self._is_open = False
        self._watch.cancel()
        if error is None:
            await self._end_as(CANCELLED if self._is_stopped else DONE)
        elif isinstance(error, Exception) and not self._ended:
            self._shown = Progress(self._shown.percent, "failed", title=self._title, body=self._shown.body)
            await self._show(most=MOST_UPDATES)
        elif self._sending.was_told_to_stop:
            with trio.move_on_after(LAST_SHOWN_SECONDS, shield=True):
                await self._end_as(CANCELLED)
        # else the run was cancelled: the next one goes on, or another message has come

    async def _end_as(self, how: Literal["done", "cancelled"]) -> None:
        """Notes the end, so that nothing which comes meanwhile makes another one of it, and then shows it, once."""
        if self._thread is not None and not self._ended:
            await self._thread.note_how(self._name, how)
        percent = WHOLE if how == DONE else self._shown.percent
        self._shown = Progress(percent, how, title=self._title, body=self._shown.body)
        await self._show(most=MOST_UPDATES, place=f"{self._place}:end")
        if how == CANCELLED and self._thread is not None:
            self._sending.count_places_behind(self._name)

    async def _show(self, most: int, place: str = "") -> None:
        """Sends the present state, unless the card has had `most` updates: in its second run it shares them with the first.

        `place`: of what is shown once, in whichever run; else each run shows it.
        """
        self._count += 1
        place = place or f"{self._place}:{self._count}:{self._sending.job.deliveries}"

        def made(kept: CardKept) -> Reply | None:
            if kept.revision >= most:
                return None
            new = update_payload(self._card_id, kept.kind, kept.revision, self._shown)
            return Reply(kind="message", content_type="artifact", payload=new)

        async with self._sending.turn():
            await self._sending.update_card(place, self._card_id, made)
