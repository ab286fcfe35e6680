"""Builders for tests of tools: what a model writes that calls some, and agents that have some."""

import json

from tests.workers.llm.endpoint import FakeEndpoint, chunk, sse
from workers import LLM, Agent


def call(name: str, _text: str | None = None, _id: str = "", **arguments: object) -> bytes:
    """An answer that calls one tool."""
    return calls((name, arguments), text=_text, ids=_id)


def calls(*made: tuple[str, object], text: str | None = None, ids: str = "") -> bytes:
    """An answer that calls tools: of arguments that are a text as they stand."""
    found = [
        {
            "index": at,
            "id": f"{ids or 'id'}{at}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
            },
        }
        for at, (name, arguments) in enumerate(made)
    ]
    return sse(*([chunk(text)] if text else []), chunk(tool_calls=found), chunk(finish="tool_calls"))


def agent_at(server: FakeEndpoint, **how: object) -> Agent:
    """An agent that answers each text by the model."""
    agent = Agent(llm=LLM("Be brief.", base_url=server.base_url, model="small"), **how)  # type: ignore[arg-type]

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    return agent


def told(server: FakeEndpoint) -> list[str]:
    """What tools have returned, as the model was told it last."""
    return [turn["content"] for turn in server.requests[-1]["messages"] if turn["role"] == "tool"]
