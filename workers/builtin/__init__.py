"""The handlers that come with the runtime, and which of them runs if an owner names none."""

from collections.abc import Mapping

ECHO = "workers.builtin.echo:agent"
LLM = "workers.builtin.llm:agent"


def default_handler(environ: Mapping[str, str]) -> str:
    """Returns `llm` if a model's endpoint is set, else `echo`."""
    return LLM if environ.get("OPENAI_BASE_URL") or environ.get("OPENAI_API_KEY") else ECHO
