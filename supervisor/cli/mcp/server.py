"""The MCP server itself: three tools for a program on this host. It holds no key, and decides nothing about rights: the agent does."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import trio
from mcp import types
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from msgspec import Meta

from bus.control.client import Control
from bus.records import ulid
from bus.records.outside import AnswerWanted, OutsideAnswer, OutsideMessage, OutsideQuestion
from bus.views.conversations import KnownConversation
from supervisor.cli.mcp.agent_line import AgentLine, Refused

NAME: Final = "hashee-agent"
MOST_ASKING: Final = 32
"""Calls of one program that wait for people; a conversation has ten open questions at most anyway."""

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.25, 2.0
GRACE_SECONDS: Final = 60.0
"""After a question's time, within which the agent says that nobody has answered."""

PROGRESS_SECONDS: Final = 15.0
"""How often a program hears that it is still waited for; many give up a call that they hear nothing of for a minute."""

INSTRUCTIONS: Final = (
    "Reaches people over an end-to-end-encrypted chat, on their phones. Ask before you do what cannot be undone (ask_person with kind=approval), "
    "and when you cannot go on without a decision. Only the conversations that the agent's owner has named can be reached."
)

Key = Annotated[
    str | None,
    Meta(
        description="A name for this one thing, such as deploy-42 (1 to 128 printable ASCII characters, no space). With it, it is done once however often "
        "you call; the same words with the same key give the same answer."
    ),
]
ConversationId = Annotated[str, Meta(description="The conversation's id, as list_conversations tells it.")]


class SendMessage(msgspec.Struct, forbid_unknown_fields=True):
    """Sends a text into a conversation, end-to-end encrypted. It does not wait for an answer."""

    conversation_id: ConversationId
    text: Annotated[str, Meta(min_length=1, max_length=100_000)]
    markdown: Annotated[bool, Meta(description="The text is Markdown.")] = False
    key: Key = None


class AskPerson(msgspec.Struct, forbid_unknown_fields=True):
    """Asks a person on their phone and waits for the answer, at most time_limit_seconds.

    kind=approval shows a card with Approve and Reject, and is answered by `approved` (and perhaps a comment in `text`); kind=text is answered by the person's next message. If your call is
    cut off, call again with the same key, question and details: the person is not asked twice, and you get the answer.
    """

    conversation_id: ConversationId
    question: Annotated[
        str,
        Meta(
            min_length=1, max_length=4_000, description="What is asked, so that it is understood without your context."
        ),
    ]
    kind: Literal["text", "approval"] = "text"
    details: Annotated[
        str | None,
        Meta(
            description="At most 10,000 characters more to read before answering, such as a diff or a command; Markdown."
        ),
    ] = None
    person: Annotated[str | None, Meta(description="In a group: the id of the person whose answer counts.")] = None
    time_limit_seconds: Annotated[float, Meta(ge=1, le=2_592_000, description="After that the question is closed.")] = (
        3600.0
    )
    key: Key = None


class ListConversations(msgspec.Struct, forbid_unknown_fields=True):
    """Lists the conversations that you may reach: id, kind (h2a: with one person, or group), whose it is, and when somebody wrote there last."""


class Receipt(msgspec.Struct):
    """Of what was queued, as the agent gives it."""

    id: str
    outcome: str


class Listed(msgspec.Struct):
    """As supervisor/run/programs.py."""

    conversations: list[KnownConversation]
    has_more: bool


class Answered(msgspec.Struct):
    """As supervisor/run/programs.py."""

    answer: OutsideAnswer | None


class NoArguments(msgspec.Struct):
    """What `mcp_conversations` asks with."""


Progress = Callable[[float, float], Awaitable[None]]
Context: TypeAlias = ServerRequestContext[Any]


@dataclass(frozen=True)
class Caller:
    """Who calls. `name`: what the program calls itself; `progress` tells it for how long it has waited, of how long."""

    name: str
    progress: Progress


class Tools:
    """What each tool does."""

    def __init__(self, agent: AgentLine) -> None:
        self._agent = agent
        self._asking = 0

    async def call(self, name: str, arguments: Mapping[str, object], caller: Caller) -> dict[str, object]:
        """Returns a tool's result. Raises Refused, msgspec.ValidationError."""
        match name:
            case "send_message":
                return await self._send(msgspec.convert(arguments, SendMessage))
            case "ask_person":
                return await self._ask(msgspec.convert(arguments, AskPerson), caller)
            case "list_conversations":
                msgspec.convert(arguments, ListConversations)
                return await self._list()
            case _:
                raise Refused("unknown_tool", f"there is no tool {name!r}: {', '.join(one.name for one in TOOLS)}")

    async def _send(self, asked: SendMessage) -> dict[str, object]:
        key = asked.key or f"mcp-{ulid.new()}"  # so that it can be repeated, whatever becomes of the first try
        message = OutsideMessage(asked.conversation_id, asked.text, asked.markdown, key)
        receipt = await self._agent.ask("mcp_send", message, Receipt)
        return {"outcome": receipt.outcome, "id": receipt.id}

    async def _ask(self, asked: AskPerson, caller: Caller) -> dict[str, object]:
        if self._asking >= MOST_ASKING:
            raise Refused("many", f"{MOST_ASKING} questions of yours wait for people already: wait for their answers")
        self._asking += 1
        try:
            answer = await self._answer(asked, caller)
        finally:
            self._asking -= 1
        told: dict[str, object] = {"status": answer.status}
        if answer.approved is not None:
            told["approved"] = answer.approved
        facts = {"text": answer.text, "by": answer.by, "reason": answer.reason, "is_cut": answer.is_cut}
        return told | {name: value for name, value in facts.items() if value}

    async def _answer(self, asked: AskPerson, caller: Caller) -> OutsideAnswer:
        began, limit = trio.current_time(), asked.time_limit_seconds
        question = OutsideQuestion(
            asked.conversation_id,
            asked.question,
            limit,
            is_approval=asked.kind == "approval",
            details=asked.details,
            who=asked.person or "",
            asker=caller.name,
            key=asked.key or f"mcp-{ulid.new()}",
        )
        receipt = await self._agent.ask("mcp_ask", question, Receipt)
        wanted = AnswerWanted(asked.conversation_id, receipt.id)
        pause, told_at = FIRST_LOOK_SECONDS, began
        while (now := trio.current_time()) < began + limit + GRACE_SECONDS:
            answer = await self._looked(wanted)
            if answer is not None:
                return answer
            if now >= told_at + PROGRESS_SECONDS:
                told_at = now
                await caller.progress(math.floor(now - began), limit)
            await trio.sleep(pause)
            pause = min(pause * 1.5, LAST_LOOK_SECONDS)
        return OutsideAnswer(asked.conversation_id, "no_answer", reason="the agent has not told how it ended")

    async def _looked(self, wanted: AnswerWanted) -> OutsideAnswer | None:
        """Returns the answer if there is one; an agent that is away is looked for again with the next look."""
        try:
            return (await self._agent.ask("mcp_answer", wanted, Answered, patience_seconds=0)).answer
        except Refused as refused:
            if not refused.is_temporary:
                raise
            return None

    async def _list(self) -> dict[str, object]:
        listed = await self._agent.ask("mcp_conversations", NoArguments(), Listed)
        return {"conversations": msgspec.to_builtins(listed.conversations), "has_more": listed.has_more}


def _tool(name: str, asked: type[msgspec.Struct], *, reads: bool = False) -> types.Tool:
    (_,), shapes = msgspec.json.schema_components([asked], ref_template="#/$defs/{name}")
    schema = {**shapes[asked.__name__]}
    description = " ".join(str(schema.pop("description")).split())
    hints = types.ToolAnnotations(read_only_hint=reads, destructive_hint=False, open_world_hint=not reads)
    return types.Tool(name=name, description=description, input_schema=schema, annotations=hints)


TOOLS: Final = (
    _tool("send_message", SendMessage),
    _tool("ask_person", AskPerson),
    _tool("list_conversations", ListConversations, reads=True),
)


def server_of(agent: AgentLine) -> Server[Any]:
    """Returns the server, which asks this agent."""
    tools = Tools(agent)

    async def list_tools(_context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        return types.ListToolsResult(tools=list(TOOLS))

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            told = await tools.call(params.name, params.arguments or {}, _caller(context))
        except (Refused, msgspec.ValidationError) as refused:
            return types.CallToolResult(content=[types.TextContent(text=str(refused))], is_error=True)
        text = msgspec.json.encode(told).decode()
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=told)

    return Server(
        NAME,
        version=version(NAME),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _caller(context: Context) -> Caller:
    client = context.session.client_params
    return Caller("" if client is None else client.client_info.name, context.session.report_progress)


def serve(control: Control) -> None:
    """Serves stdin and stdout until stdin ends. An error raised here is the process' own."""
    trio.run(_serve, server_of(AgentLine(control)))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
