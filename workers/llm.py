"""Asks a language model behind any OpenAI-compatible endpoint; gives its answer in pieces, and is cancelled with the job.

`openai` costs 20 MiB and is imported when a model is first asked. It does not retry here: a job that meets a busy endpoint gives its slot
back and runs again later (`LLMBusy` says when). No exception of this file quotes the conversation or the endpoint's answer.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import trio

from workers.handling.context import JobContext

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

Write: TypeAlias = Callable[[str], Awaitable[None]]
Pieces: TypeAlias = trio.MemorySendChannel[str]

FIRST_TOKEN_METRIC = "business_llm_first_token_seconds"  # noqa: S105  # a name
TOKENS_METRIC = "business_llm_tokens"
DURATION_METRIC = "business_llm_duration_ms"
DEFAULT_MODEL = "gpt-4o-mini"
DEFAULT_SYSTEM_PROMPT = "You are a helpful agent in a chat. Answer briefly, in the language of the message."
# A model that thinks for long sends nothing meanwhile; a dead connection must still be noticed.
READ_TIMEOUT_SECONDS = 120.0
BUSY_SECONDS = 5.0
# The wait for the response to end after its last event, so that its connection can be used again.
GOODBYE_SECONDS = 1.0
BUSY_LIMIT_SECONDS = 300.0


class LLMError(Exception):
    """The model gave no complete answer."""


class LLMBusy(LLMError):
    """The endpoint is busy and asks to try again later."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"the model's endpoint is busy for {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


class LLMCut(LLMError):
    """The answer broke off before its end."""


class LLMRefused(LLMError):
    """The endpoint refused the request: `status` is its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the model's endpoint answered with HTTP status {status}")
        self.status = status


class LLMUnreachable(LLMError):
    """The endpoint cannot be reached."""


class Turn(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str

    def __repr__(self) -> str:
        return f"Turn(role={self.role!r}, …)"


@dataclass(frozen=True, kw_only=True)
class LLMSettings:
    """Where the model is and how it is asked. `base_url` None: OpenAI's own endpoint."""

    base_url: str | None = None
    api_key: str = field(default="none", repr=False)
    model: str = DEFAULT_MODEL
    system_prompt: str = field(default=DEFAULT_SYSTEM_PROMPT, repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "LLMSettings":
        """Reads OPENAI_BASE_URL, OPENAI_API_KEY, HASHEE_LLM_MODEL, HASHEE_LLM_SYSTEM_PROMPT_FILE. Raises OSError for the last."""
        prompt_file = environ.get("HASHEE_LLM_SYSTEM_PROMPT_FILE")
        prompt = Path(prompt_file).read_text(encoding="utf-8").strip() if prompt_file else DEFAULT_SYSTEM_PROMPT
        return cls(
            base_url=environ.get("OPENAI_BASE_URL") or None,
            # Local endpoints need no key, but the client insists on one.
            api_key=environ.get("OPENAI_API_KEY") or "none",
            model=environ.get("HASHEE_LLM_MODEL") or DEFAULT_MODEL,
            system_prompt=prompt,
        )


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None


class EventReader:
    """Decodes the server-sent events of a streamed chat completion into pieces of text; half an event at the end is ignored."""

    def __init__(self) -> None:
        self.is_complete = False
        self.is_broken = False
        self.usage: _Usage | None = None
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Returns the pieces that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [piece for line in lines if line.startswith(b"data:") for piece in self._of_event(line[5:].strip())]

    def _of_event(self, event: bytes) -> list[str]:
        if self.is_broken or event == b"[DONE]":
            return []
        try:
            chunk = msgspec.json.decode(event, type=_Chunk)
        except msgspec.DecodeError:
            self.is_broken = True
            return []
        self.usage = chunk.usage or self.usage
        self.is_complete = self.is_complete or any(choice.finish_reason for choice in chunk.choices)
        return [choice.delta.content for choice in chunk.choices if choice.delta.content]


class LLM:
    """One endpoint and model, shared by all jobs of a worker; `aclose` it."""

    def __init__(self, settings: LLMSettings) -> None:
        self._settings = settings
        self._client: AsyncOpenAI | None = None

    async def aclose(self) -> None:
        """Ends its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def answer(self, turns: Sequence[Turn], write: Write, job: JobContext) -> None:
        """Awaits `write` with each piece of the answer to `turns`, which follow the system prompt.

        Raises LLMBusy, LLMRefused, LLMUnreachable, LLMCut, and what `write` raises. In any case the duration goes to
        `business_llm_duration_ms{model}`; so do the time to the first piece, and the tokens if the endpoint counts them, to theirs.
        """
        started, model = trio.current_time(), self._settings.model
        events = EventReader()
        has_begun = False

        async def write_and_note(piece: str) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                job.observe(FIRST_TOKEN_METRIC, trio.current_time() - started, model=model)
            await write(piece)

        try:
            await _pass_on(lambda pieces: self._read(turns, pieces, events), write_and_note)
        finally:
            job.observe(DURATION_METRIC, (trio.current_time() - started) * 1000, model=model)
            if events.usage is not None:
                job.observe(TOKENS_METRIC, events.usage.prompt_tokens, model=model, kind="prompt")
                job.observe(TOKENS_METRIC, events.usage.completion_tokens, model=model, kind="completion")

    async def _read(self, turns: Sequence[Turn], pieces: Pieces, events: EventReader) -> None:
        client = self._connect()
        async with _named_errors():
            request = client.chat.completions.with_streaming_response.create(
                model=self._settings.model,
                messages=[_as_openai(turn) for turn in (self._system(), *turns)],
                stream=True,
                stream_options={"include_usage": True},
            )
            async with request as response:
                with trio.CancelScope() as patience:
                    async for data in response.iter_bytes():
                        for piece in events.feed(data):
                            pieces.send_nowait(piece)
                        if events.is_complete or events.is_broken:
                            patience.deadline = trio.current_time() + GOODBYE_SECONDS
        if events.is_broken or not events.is_complete:
            raise LLMCut("the model's answer broke off before its end")

    def _system(self) -> Turn:
        return Turn("system", self._settings.system_prompt)

    def _connect(self) -> "AsyncOpenAI":
        if self._client is None:
            from openai import AsyncOpenAI, Timeout  # noqa: PLC0415 - TRAPS: import it when first used

            self._client = AsyncOpenAI(
                base_url=self._settings.base_url,
                api_key=self._settings.api_key,
                max_retries=0,
                timeout=Timeout(READ_TIMEOUT_SECONDS, connect=10.0),
            )
        return self._client


async def _pass_on(read: Callable[[Pieces], Awaitable[None]], write: Write) -> None:
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
            except LLMError as error:
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
async def _named_errors() -> AsyncIterator[None]:
    import httpx2  # noqa: PLC0415 - comes with openai
    import openai  # noqa: PLC0415

    try:
        yield
    except openai.RateLimitError as error:
        raise LLMBusy(_retry_after(error.response.headers)) from None
    except openai.APIStatusError as error:
        raise LLMRefused(error.status_code) from None
    except openai.APIConnectionError:
        raise LLMUnreachable("the model's endpoint cannot be reached") from None
    except (httpx2.TransportError, openai.APIError):
        raise LLMCut("the model's answer broke off before its end") from None


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return BUSY_SECONDS
    return min(max(seconds, 0.0), BUSY_LIMIT_SECONDS)


def _as_openai(turn: Turn) -> "ChatCompletionMessageParam":
    match turn.role:
        case "system":
            return {"role": "system", "content": turn.text}
        case "user":
            return {"role": "user", "content": turn.text}
        case "assistant":
            return {"role": "assistant", "content": turn.text}
