"""Why a model's answer ended, in one vocabulary: endpoints have words of their own for it. No IO.

A word that is not known ends an answer as any other. What counts is the few that say that an answer is not whole: by a limit, by a filter, or since
whoever wrote it was stopped, which is no answer at all, however politely its stream ends.
"""

from collections.abc import Mapping
from typing import Final

LENGTH: Final = "length"
"""The finish reason of an answer that has reached a limit."""

FILTER: Final = "content_filter"
"""The finish reason of an answer that the endpoint has stopped."""

STOPPED: Final = "stopped"
"""Ours, of an answer that the person has stopped."""

MOST_CHARACTERS: Final = 64

_LIMITS: Final = frozenset(
    {
        LENGTH,
        "max_tokens",  # Gemini, Anthropic
        "max_output_tokens",
        "max_length",
        "token_limit",
        "model_length",  # Mistral: the model's context is full
        "model_context_window_exceeded",  # GLM, Anthropic
    }
)
_FILTERS: Final = frozenset(
    {FILTER, "content-filter", "safety", "sensitive", "recitation", "blocklist", "prohibited_content", "spii"}
)
_BROKEN: Final = frozenset(
    {
        "error",  # Mistral, OpenRouter
        "abort",  # vLLM and SGLang: the engine was paused, or shut down
        "aborted",
        "cancel",
        "cancelled",
        "canceled",
        "network_error",  # GLM
        "insufficient_system_resource",  # DeepSeek
        "malformed_function_call",  # Gemini: the model has written a call that is none
    }
)


def reason_in(choice: Mapping[str, object]) -> str:
    """Returns why an answer ended; '' if a choice does not say. SGLang's own API has it as the `type` of an object."""
    said = choice.get("finish_reason")
    said = said.get("type") if isinstance(said, dict) else said
    if not isinstance(said, str):
        return ""
    word = said.strip().lower()
    if word in _LIMITS:
        return LENGTH
    return FILTER if word in _FILTERS else said[:MOST_CHARACTERS]


def is_broken(choice: Mapping[str, object]) -> bool:
    """Returns whether an answer ended since its endpoint could not go on."""
    return reason_in(choice).strip().lower().rpartition(" ")[2] in _BROKEN
