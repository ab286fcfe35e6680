"""What an endpoint's failure is, by its status, its headers and what it says of it. Whether it may be over in a while follows from its class.

Nothing that an endpoint says is shown or kept but a short code: its words may quote the conversation, or the key.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from workers.errors import LLMBusy, LLMCut, LLMError, LLMRefused, LLMTooLong, LLMUnreachable
from workers.llm.finish import is_broken

SHORTEST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300.0
"""What an endpoint asks for is kept within these."""

_BUSY = frozenset({429, 503, 529})
_PASSING = frozenset({408, 409, 425})
_SERVER_ERRORS = 500
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_OUT_OF_CREDIT = re.compile(r"insufficient_quota|billing|insufficient_balance|payment_required", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum context|max_model_len|max_context|too many (?:input )?tokens|prompt is too long"
    r"|input is too long|reduce the length|longer than the (?:model|maximum)|when context the overflows|context[_ ]overflow"
    r"|exceed\w* (?:the )?(?:available |model'?s? |maximum )*(?:context|(?:input )?token)|tokens? (?:limit )?exceed",
    re.IGNORECASE,
)
_NO_TOOLS = re.compile(
    r"does not support tools|tools? (?:use|calling) is not supported|support(?:s|ing)? (?:tool use|function calling)"
    r"|enable-auto-tool-choice|tools param requires|requires --jinja",
    re.IGNORECASE,
)
NO_TOOLS = (
    "the model, or how it is served, takes no tools: take one that does, have its server read them (vLLM: --enable-auto-tool-choice, "
    "llama.cpp: --jinja), or llm.reply(tools=False)"
)
_NO_PICTURES = re.compile(
    r"(?:image|vision|picture|multi-?modal|mmproj)[^.]{0,80}(?:not|n't|un|only|0 image|requires|missing)[^.]{0,40}"
    r"(?:support|allow|accept|valid|enabled|provid|available|model)"
    r"|(?:not|n't|no|un)[^.]{0,40}(?:support|accept|allow|endpoints found)[^.]{0,60}(?:image|vision|multi-?modal|picture)"
    r"|not a multi-?modal|at most 0 image|missing data required for image|unsupported[_ ]image|invalid[_ ]image",
    re.IGNORECASE,
)
"""What endpoints say of a picture that their model does not take; looked for only where one was shown."""

_MISWRITTEN = re.compile(r"\b(?:tool_use_failed|output_parse_failed)\b")
"""Codes by which Groq says, with status 400, that the model has written a call or an answer that cannot be read: asked again, it may write another."""

MISWRITTEN = "the model has written a call that its endpoint cannot read"

_BY_NAME = (
    (re.compile(r"rate.?limit|too.?many.?requests|throttl", re.IGNORECASE), 429),
    (re.compile(r"overload|unavailable|capacity|server.?busy", re.IGNORECASE), 503),
    (re.compile(r"authentication|invalid.?api.?key|unauthorized", re.IGNORECASE), 401),
    (re.compile(r"permission|forbidden", re.IGNORECASE), 403),
    (re.compile(r"model.?not.?found", re.IGNORECASE), 404),
)


def failure_told(value: Mapping[str, object]) -> LLMError | None:
    """Returns the failure that an answer, or a choice in it, tells of itself in a response with status 200; None if it tells none."""
    if value.get("error") or "error" in (value.get("object"), value.get("type")):
        return failure_in(value)
    if is_broken(value):
        return LLMCut("the model's endpoint ended the answer with an error")
    return None


def failure_in(value: object) -> LLMError:
    """Returns the failure that is told by a value which was sent as an error."""
    told = (value.get("error") or value) if isinstance(value, dict) else value
    if any(map(_MISWRITTEN.fullmatch, _codes_in(told))):
        return LLMCut(MISWRITTEN)
    status = _status_in(told) or _status_in(value)
    if status is not None:
        return failure_of(status, {}, told)
    return LLMTooLong() if _TOO_LONG.search(_words_in(told)) else LLMCut("the model's endpoint told an error")


def failure_of(status: int, headers: Mapping[str, str], told: object) -> LLMError:
    """Returns the failure of a status and of what was told with it."""
    words = _words_in(told)
    code = next((word for word in _codes_in(told)), "")
    if status != 429 and _TOO_LONG.search(words):
        return LLMTooLong()
    after = seconds_asked(headers)
    if any(map(_MISWRITTEN.fullmatch, _codes_in(told))):
        return LLMCut(MISWRITTEN)
    if _NO_TOOLS.search(words):
        return LLMRefused(status, code, NO_TOOLS)
    if status == 429 and _OUT_OF_CREDIT.search(words):
        return LLMRefused(status, code)
    if status in _BUSY or (status >= _SERVER_ERRORS and after is not None):
        return LLMBusy(after)
    if status >= _SERVER_ERRORS or status in _PASSING:
        return LLMUnreachable(f"the model's endpoint answered with HTTP status {status}")
    return LLMRefused(status, code)


def is_about_pictures(status: int, told: object) -> bool:
    """Returns whether a request with pictures failed since the model takes none, or none of this type."""
    is_passing = status in _BUSY or status in _PASSING
    return not is_passing and _NO_PICTURES.search(_words_in(told)) is not None


def seconds_asked(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Returns for how long the endpoint asks to wait, within bounds; None if it does not say, or says what is no time.

    It says so in milliseconds (`Retry-After-Ms`), in seconds, or by a date.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name, "").strip()
        seconds = _number(said) / unit
        if math.isnan(seconds) and unit == 1:
            seconds = _until(said, now or datetime.now(UTC))
        if not math.isnan(seconds):
            return min(max(seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
    return None


def _number(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return math.nan


def _until(said: str, now: datetime) -> float:
    try:
        due = parsedate_to_datetime(said)
        return ((due if due.tzinfo else due.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return math.nan


def _status_in(told: object) -> int | None:
    """Returns the HTTP status that an error names, by its number or its name."""
    if not isinstance(told, dict):
        return None
    for name in ("code", "status", "status_code", "http_status"):
        said = told.get(name)
        number = int(said) if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) == 3 else said
        if isinstance(number, int) and 400 <= number <= 599:
            return number
    names = " ".join(_codes_in(told))
    return next((status for pattern, status in _BY_NAME if pattern.search(names)), None)


def _codes_in(told: object) -> list[str]:
    """Returns the codes by which an error is named: words without spaces, which quote nobody."""
    if not isinstance(told, dict):
        return []
    inner = told.get("error")
    said = [told.get(name) for name in ("code", "type", "status")]
    found = [word for word in said if isinstance(word, str) and _CODE.fullmatch(word)]
    return [*found, *(_codes_in(inner) if isinstance(inner, dict) else [])]


def _words_in(told: object) -> str:
    """Returns an error as a text, to look for words in it."""
    try:
        return json.dumps(told, ensure_ascii=False)
    except RecursionError:
        return ""
