"""Says something from a program of the owner's own (a web server, a cron job) that runs as the agent's user on the agent's host.

It asks the running agent over its control socket, which only that user can open. So the program needs no key and no Redis: a message goes in, and
its receipt comes back. The async form works under trio and under asyncio; it asks in a thread.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import trio

from bus.records import ulid
from bus.records.outside import OutsideMessage
from bus.settings.places import control_directories, control_place
from host.lines import LINE_LIMIT_BYTES, Lines
from host.socket_place import RuntimeDirectoryUnsafe
from workers.errors import NotSent
from workers.talk.cards import Card, card_payload

ANSWER_SECONDS: Final = 30.0
"""As long as the agent's own commands wait for an answer."""

RECEIVE_BYTES: Final = 65536


class Receipt(msgspec.Struct, frozen=True):
    """What became of a message. `outcome`: queued, waits (behind others that were sent so), or already (the same was sent under this key)."""

    conversation_id: str
    id: str
    outcome: str
    card_id: str = ""


class _Request(msgspec.Struct, frozen=True):
    command: str
    message: OutsideMessage


class _Refusal(msgspec.Struct, frozen=True):
    reason: str = "refused"


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    error: str = ""
    result: msgspec.Raw = msgspec.Raw(b"{}")


class BlockingOutside:
    """`with BlockingOutside() as it: it.send(conversation_id, "Deployed", key="deploy-42")`, from any thread."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ`: where the agent's HASHEE_STATE_DIR or HASHEE_AGENT_ID stands; else this process' own. Raises SettingsError."""
        self._directories = control_directories(os.environ if environ is None else environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is kept open."""

    def send(
        self, conversation_id: str, what: str | Card, *, markdown: bool = False, key: str | None = None
    ) -> Receipt:
        """Queues a text or a card in a conversation; with a `key` once, however often it is called. Raises NotSent.

        The receipt of a card that is new has its `card_id`, by which a handler may update it.
        """
        if isinstance(what, str):
            return self._ask(OutsideMessage(conversation_id, what, markdown, key))
        card_id = ulid.new()
        receipt = self._ask(OutsideMessage(conversation_id, key=key, card=card_payload(what, card_id)))
        return receipt if receipt.outcome == "already" else msgspec.structs.replace(receipt, card_id=card_id)

    def remind(self, conversation_id: str, name: str, data: object = None, *, key: str | None = None) -> Receipt:
        """Has the handler `@agent.on_reminder(name)` run in a conversation; with a `key` once. `data`: what JSON knows. Raises NotSent."""
        return self._ask(OutsideMessage(conversation_id, key=key, reminder=name, data=data))

    def _ask(self, message: OutsideMessage) -> Receipt:
        try:
            line = msgspec.json.encode(_Request("send", message))
        except (TypeError, ValueError, RecursionError):
            raise NotSent("bad_message", "this holds something that JSON does not have") from None
        if len(line) > LINE_LIMIT_BYTES:
            raise NotSent("text_too_long", "this is larger than a request may be: send it in parts")
        return self._exchange(line)

    def _exchange(self, line: bytes) -> Receipt:
        state_dir = self._directories[0]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            try:
                connection.connect(str(self._place()))
            except PermissionError:
                raise NotSent(
                    "not_ours", f"the agent of {state_dir} belongs to another user; run this as that user"
                ) from None
            except OSError:
                raise NotSent(
                    "no_agent",
                    f"no agent runs on {state_dir} (start one with hashee-agent up, or set HASHEE_STATE_DIR)",
                ) from None
            lines = Lines()
            try:
                connection.sendall(line + b"\n")
                while data := connection.recv(RECEIVE_BYTES):
                    for answer in lines.feed(data):
                        return _receipt(answer)
            except (OSError, msgspec.DecodeError):
                pass  # there is no answer that can be read
        raise NotSent(
            "unknown", "the agent did not answer, and whether it was queued is not known: with a key it may be repeated"
        )

    def _place(self) -> Path:
        try:
            return control_place(*self._directories)
        except RuntimeDirectoryUnsafe as problem:
            raise NotSent("not_ours", str(problem)) from None


def _receipt(line: bytes) -> Receipt:
    """Returns what an answer says. Raises NotSent, msgspec.DecodeError."""
    answer = msgspec.json.decode(line, type=_Answer)
    if answer.ok:
        return msgspec.json.decode(answer.result, type=Receipt)
    raise NotSent(msgspec.json.decode(answer.result, type=_Refusal).reason, answer.error)


class Outside:
    """`async with Outside() as it: await it.send(conversation_id, "Deployed", key="deploy-42")`, under trio or asyncio."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """As BlockingOutside."""
        self._blocking = BlockingOutside(environ)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Nothing is kept open."""

    async def send(
        self, conversation_id: str, what: str | Card, *, markdown: bool = False, key: str | None = None
    ) -> Receipt:
        """Queues a text or a card, as BlockingOutside. Raises NotSent."""
        return await _in_a_thread(partial(self._blocking.send, conversation_id, what, markdown=markdown, key=key))

    async def remind(self, conversation_id: str, name: str, data: object = None, *, key: str | None = None) -> Receipt:
        """Has the handler `@agent.on_reminder(name)` run in a conversation; with a `key` once. `data`: what JSON knows. Raises NotSent."""
        return await _in_a_thread(partial(self._blocking.remind, conversation_id, name, data, key=key))


async def _in_a_thread(ask: Callable[[], Receipt]) -> Receipt:
    """Runs in a thread of the event loop that there is."""
    asyncio = sys.modules.get("asyncio")  # which need not be imported to know that nobody uses it
    try:
        if asyncio is not None and asyncio.get_running_loop():
            receipt: Receipt = await asyncio.to_thread(ask)
            return receipt
    except RuntimeError:  # there is none
        pass
    return await trio.to_thread.run_sync(ask)
