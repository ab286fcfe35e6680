"""Answers of a model that are values: how they are asked for, and how they are found in what it wrote.

Models put JSON into a fence, or a sentence before it; a word where a text is asked for comes without quotes. All of that is read.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)
_MOST_BEGINNINGS = 20


class Misfit(Exception):
    """An answer is no such value. Its text is for the model: it may quote what it wrote."""


def asked_for(prompt: str, kind: Any) -> str:
    """Returns a prompt that asks for a value of a type. Raises TypeError for one that has no JSON Schema."""
    schema = msgspec.json.encode(msgspec.json.schema(kind)).decode()
    return f"{prompt}\n\nAnswer with JSON alone, without any other word, that fits this JSON Schema:\n{schema}"


def value_in(text: str, kind: Any) -> Any:
    """Returns the value in an answer. Raises Misfit."""
    why = "there is no JSON in it"
    for found in _values_in(text):
        try:
            return msgspec.convert(found, type=kind, strict=False)
        except msgspec.ValidationError as error:
            why = str(error)
    raise Misfit(why) from None


def _values_in(text: str) -> Iterator[object]:
    """Yields what may be meant: the whole text as JSON, what stands in a fence, what begins somewhere, the text itself."""
    for part in (text, *_FENCE.findall(text)):
        try:
            yield json.loads(part)
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder()
    for begins in list(re.finditer(r"[{\[]", text))[:_MOST_BEGINNINGS]:
        try:
            yield decoder.raw_decode(text, begins.start())[0]
        except (ValueError, RecursionError):
            continue
    yield text.strip().strip("\"'`.")
