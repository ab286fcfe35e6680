"""Asks a language model behind any OpenAI-compatible endpoint; its answer comes in pieces, and ends with whoever asked.

`openai` costs 20 MiB and is imported when a model is first asked. It carries the request and names what goes wrong with it; the body is read
by reading.py, since its own stream loses what many endpoints send (docs/llm.md). Nothing is asked twice here but where `stream_options` was
refused.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import trio

from workers.errors import LLMCut, LLMError, LLMNoPictures, LLMUnreachable
from workers.llm.failures import failure_of, is_about_pictures
from workers.llm.reading import BROKE_OFF, AnswerReader, Completion
from workers.llm.unpacking import BadPacking, Unpacker

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

Write: TypeAlias = Callable[[str], Awaitable[None]]
Chat: TypeAlias = Sequence[Mapping[str, object]]
"""The messages of a conversation: `{"role": …, "content": …}`."""

READ_TIMEOUT_SECONDS: Final = 120.0
"""A model that thinks for long sends nothing meanwhile; a dead connection must still be noticed."""

CONNECT_TIMEOUT_SECONDS: Final = 10.0
GOODBYE_SECONDS: Final = 1.0
"""The wait for the body's end after `[DONE]`, so that its connection can be used again."""

SILENCE_SECONDS: Final = 10.0
"""After a finish reason and no further word for so long an endpoint has forgotten to say that this was the end."""

USAGE_OPTION: Final = "stream_options"
PACKED_BADLY: Final = "the model's endpoint sent a compressed answer that cannot be unpacked"


@dataclass(frozen=True)
class Offer:
    """The tools that a model may call in an answer, as endpoints take them. `may_call` False: it has to answer in words."""

    tools: Sequence[Mapping[str, object]] = ()
    may_call: bool = True

    def as_fields(self) -> dict[str, object]:
        """Returns the fields of a request. Tools that were called are named also where none may be: many endpoints refuse their calls else."""
        if not self.tools:
            return {}
        return {"tools": list(self.tools), **({} if self.may_call else {"tool_choice": "none"})}


NOTHING_OFFERED: Final = Offer()


class _Request(NamedTuple):
    """What is asked of an endpoint."""

    model: str
    chat: Chat
    offer: Offer


@dataclass(frozen=True, kw_only=True)
class EndpointAddress:
    """Where a model is. `base_url` None: OpenAI's own endpoint. `options`: what every request has besides, such as `temperature`."""

    base_url: str | None = None
    api_key: str = field(default="none", repr=False)
    options: Mapping[str, object] = field(default_factory=dict)


class ModelEndpoint:
    """One endpoint, shared by all jobs of a worker; `aclose` it."""

    def __init__(self, place: EndpointAddress) -> None:
        self._place = place
        self._client: AsyncOpenAI | None = None
        self._counts_tokens = True

    async def aclose(self) -> None:
        """Ends its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, model: str, chat: Chat, write: Write, offer: Offer = NOTHING_OFFERED) -> Completion:
        """Awaits `write` with each piece of the model's answer; returns the whole answer. Raises LLMError, and what `write` raises."""
        request = _Request(model, chat, offer)
        try:
            return await self._ask(request, write)
        except _UsageRefused:
            self._counts_tokens = False
            return await self._ask(request, write)

    async def _ask(self, request: "_Request", write: Write) -> Completion:
        reader, found = AnswerReader(takes_calls=bool(request.offer.tools)), list[Completion]()

        async def read(pieces: trio.MemorySendChannel[str]) -> None:
            found.append(await self._read(request, reader, pieces))

        await _pass_on(read, write)
        return found[0]

    async def _read(self, asked: "_Request", reader: AnswerReader, pieces: trio.MemorySendChannel[str]) -> Completion:
        client = self._connect()
        more: dict[str, object] = {**self._place.options, **asked.offer.as_fields()}
        if self._counts_tokens:
            more[USAGE_OPTION] = {"include_usage": True}
        messages: Any = list(asked.chat)
        is_whole = False
        async with _named_errors(
            self._counts_tokens, any(isinstance(turn.get("content"), list) for turn in asked.chat)
        ):
            request = client.chat.completions.with_streaming_response.create(
                model=asked.model, messages=messages, stream=True, extra_body=more
            )
            async with request as response:
                http = response.http_response
                body = _Body(reader, http.headers.get("content-encoding", ""))
                with trio.CancelScope() as patience:
                    async for data in http.aiter_raw():
                        if text := body.feed(data):
                            pieces.send_nowait(text)
                        patience.deadline = _deadline(reader)
                    is_whole = _says_its_end(http) and body.is_at_end
                is_whole = is_whole or patience.cancelled_caught
        return reader.end(is_whole=is_whole)

    def _connect(self) -> "AsyncOpenAI":
        if self._client is None:
            from openai import AsyncOpenAI, Timeout  # noqa: PLC0415 - TRAPS: import it when first used

            self._client = AsyncOpenAI(
                base_url=self._place.base_url,
                api_key=self._place.api_key,
                max_retries=0,
                default_headers={
                    "Accept-Encoding": "identity"
                },  # pieces of a packed body come later than they are written
                timeout=Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            )
        return self._client


class _Body:
    """A body as it comes from the network."""

    def __init__(self, reader: AnswerReader, encoding: str) -> None:
        self._reader = reader
        self._unpacker: Unpacker | None = None
        try:
            self._unpacker = Unpacker(encoding)
        except BadPacking:
            self._reader.fail(LLMCut(PACKED_BADLY))

    @property
    def is_at_end(self) -> bool:
        return self._unpacker is not None and self._unpacker.is_at_end

    def feed(self, data: bytes) -> str:
        """Returns the text that it adds; what cannot be unpacked is the reader's failure, since the stream is not left here."""
        if self._unpacker is None:
            return ""
        try:
            return self._reader.feed(self._unpacker.feed(data))
        except BadPacking:
            self._reader.fail(LLMCut(PACKED_BADLY))
            return ""


def _deadline(reader: AnswerReader) -> float:
    """Returns until when the next bytes are waited for."""
    if reader.failure is not None:
        return -math.inf  # the stream is left where it waits for the network, and only there: see _pass_on
    if reader.is_done:
        return trio.current_time() + GOODBYE_SECONDS
    if reader.finish and not reader.goes_on_after_finish:
        return trio.current_time() + SILENCE_SECONDS
    return math.inf


def _says_its_end(response: "httpx2.Response") -> bool:
    """Returns whether a body says where it ends, so that one that was cut off is noticed: else its end may be that of the connection."""
    said = response.headers
    return "content-length" in said or "transfer-encoding" in said or response.http_version.startswith("HTTP/2")


class _UsageRefused(Exception):
    """The endpoint refuses to be asked for numbers of tokens."""


async def _pass_on(read: Callable[[trio.MemorySendChannel[str]], Awaitable[None]], write: Write) -> None:
    """Awaits `write` with what `read` sends, concurrently.

    The HTTP client's generators may only be left while they wait for the network: one left at a `yield` would be closed by the garbage
    collector some time later. So reading never waits for `write`.
    """
    sender, receiver = trio.open_memory_channel[str](math.inf)
    failures: list[Exception] = []

    async def reading() -> None:
        with sender:
            try:
                await read(sender)
            except (LLMError, _UsageRefused) as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading)
        try:
            async for piece in receiver:
                await write(piece)
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery and its groups
            failures.insert(0, error)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]


@asynccontextmanager
async def _named_errors(asks_for_usage: bool, has_pictures: bool) -> AsyncIterator[None]:
    import httpx2  # noqa: PLC0415 - comes with openai
    import openai  # noqa: PLC0415

    try:
        yield
    except openai.APIStatusError as error:
        if asks_for_usage and USAGE_OPTION in str(error.body):
            raise _UsageRefused from None
        told = error.body if isinstance(error.body, dict | list | str) else None
        if has_pictures and is_about_pictures(error.status_code, told):
            raise LLMNoPictures from None
        raise failure_of(error.status_code, error.response.headers, told) from None
    except (openai.APIConnectionError, httpx2.ConnectError):
        raise LLMUnreachable("the model's endpoint cannot be reached") from None
    except (httpx2.HTTPError, httpx2.StreamError, openai.APIError):
        raise LLMCut(BROKE_OFF) from None
