"""`@agent.tool`: the schema that is made of a function, what it is given beside it, and what the model is told of it."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal

import msgspec
import pytest
import trio
from msgspec import Meta, Struct

from tests.waiting import waiting_for
from tests.workers.llm.endpoint import FakeEndpoint, chunk, endpoint, events, sse
from tests.workers.tools.scenes import agent_at, call, calls, told
from workers import (
    LLM,
    Agent,
    BadHandler,
    BlockingChat,
    BlockingLLM,
    Chat,
    Job,
    Router,
    StateInTool,
    Store,
    StoreInTool,
    ToolError,
)
from workers.testing import Conversation, conversation
from workers.tools import calls as running

WITHIN_SECONDS = 10


async def say(chat: Conversation, text: str = "hi") -> list[str]:
    with waiting_for("the agent's answer", WITHIN_SECONDS):
        return [said.text for said in await chat.say(text)]


async def returned(server: FakeEndpoint, agent: Agent, *answers: bytes) -> list[str]:
    """What the model is told of the tools that these answers call."""
    server.say(*answers, events("Done."))
    assert (await say(conversation(agent)))[-1] == "Done."
    return told(server)


async def test_a_tools_schema_is_its_signature_and_its_description_the_docstring() -> None:
    agent = Agent(llm=LLM())

    @agent.tool
    async def weather(
        city: Annotated[str, Meta(description="Where")],
        day: date | None = None,
        unit: Literal["C", "F"] = "C",
    ) -> str:
        """Says how the weather is.

        For a day to come too.
        """
        return f"{city} {day} {unit}"

    [tool] = agent.tools
    assert (tool.name, tool.sensitivity) == ("weather", "low")
    assert tool.description == "Says how the weather is.\n\nFor a day to come too."
    assert tool.schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "day": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
            "unit": {"enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


async def test_a_tool_is_called_and_the_model_goes_on_with_what_it_returned() -> None:
    async with endpoint(call("weather", city="Rome"), events("Sunny.")) as server:
        agent = agent_at(server)

        @agent.tool
        async def weather(city: str, day: date | None = None) -> str:
            """Says the weather."""
            return f"{city}: sunny ({day})"

        chat = conversation(agent)
        assert await say(chat, "Weather in Rome?") == ["Sunny."]
        first, second = server.requests
        assert [tool["function"]["name"] for tool in first["tools"]] == ["weather"]
        assert second["messages"][1:] == [
            {"role": "user", "content": "Weather in Rome?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "id0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "id0", "content": "Rome: sunny (None)"},
        ]
        assert await chat.run_again() == []
        assert len(server.requests) == 2


async def test_what_the_model_says_before_it_calls_is_said_too() -> None:
    async with endpoint(call("look", _text="Let me look."), events("It is there.")) as server:
        agent = agent_at(server)

        @agent.tool
        async def look() -> None:
            """Looks."""

        chat = conversation(agent)
        assert await say(chat) == ["Let me look.", "It is there."]
        assert await chat.run_again() == []


class Filter(Struct):
    words: list[str]
    most: int = 5


async def test_arguments_are_converted_strictly_and_what_does_not_fit_is_told() -> None:
    async with endpoint(b"") as server:
        agent, heard = agent_at(server), list[Any]()

        @agent.tool
        async def find(filter: Filter, since: date, times: int = 1, tags: list[str] = []) -> int:  # noqa: A002, B006
            heard.append((filter, since, times, tags))
            return 3

        good: dict[str, Any] = {"filter": {"words": ["a"]}, "since": "2026-11-30"}
        assert await returned(server, agent, call("find", **good)) == ["3"]
        assert heard == [(Filter(["a"]), date(2026, 11, 30), 1, [])]
        for bad in (
            {**good, "times": "3"},
            {**good, "more": 1},
            {"since": "2026-11-30"},
            {**good, "since": "tomorrow"},
        ):
            [why] = await returned(server, agent, call("find", **bad))
            assert why.startswith("The arguments do not fit: ")
        for broken in ("[1]", '{"a":', "null", "", '{"filter": NaN}', "[" * 5000):
            [why] = await returned(server, agent, calls(("find", broken)))
            assert why in (running.NO_JSON, "The arguments do not fit: Object missing required field `filter`")
        assert len(heard) == 1
        assert await returned(server, agent, call("nothing")) == [running.NO_SUCH_TOOL]


class Counted(Struct):
    messages: int = 0


async def test_a_tool_is_given_what_handlers_are_given_and_the_model_hears_nothing_of_it() -> None:
    async with endpoint(b"") as server:
        agent, heard = agent_at(server, state=Counted), list[Any]()

        @agent.tool
        async def note(what: str, chat: Chat, job: Job, store: Store, state: Counted) -> str:
            await chat.reply(f"I note {what}.")
            await store.change("notes", lambda notes: [*notes, what], [])
            heard.append((job.idempotency_key, state.messages))
            return "noted"

        assert list(agent.tools[0].schema["properties"]) == ["what"]  # type: ignore[call-overload]
        server.say(calls(("note", {"what": "milk"}), ("note", {"what": "tea"})), events("Done."))
        chat = conversation(agent)
        assert sorted(await say(chat)) == ["Done.", "I note milk.", "I note tea."]
        assert len({key for key, _ in heard}) == 2
        assert await chat.run_again() == []
        assert len(heard) == 2
        await say(chat)


async def test_a_sync_tool_runs_in_a_thread_and_its_chat_needs_no_await() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        def add(one: int, two: int, chat: BlockingChat) -> dict[str, int]:
            chat.reply("I add.")
            return {"sum": one + two}

        server.say(call("add", one=2, two=3), events("5."))
        assert await say(conversation(agent)) == ["I add.", "5."]
        assert told(server) == ['{"sum":5}']


async def test_a_tools_failure_is_told_to_the_model_in_its_own_words_or_by_its_class_alone() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def fail(how: str) -> str:
            if how == "told":
                raise ToolError("The service is closed today.")
            raise LookupError("a password")

        assert await returned(server, agent, call("fail", how="told")) == ["The service is closed today."]
        assert await returned(server, agent, call("fail", how="other")) == ["This has failed: LookupError."]


async def test_a_tool_that_takes_too_long_is_ended_and_the_model_is_told() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool(timeout=timedelta(milliseconds=20))
        async def hang() -> None:
            await trio.sleep_forever()

        assert await returned(server, agent, call("hang")) == ["This took longer than 0.02 s, and was ended."]


async def test_a_long_result_is_cut_and_says_so() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def read() -> str:
            return "ü" * 100_000

        [text] = await returned(server, agent, call("read"))
        assert text.endswith(running.CUT)
        assert len(text.encode()) <= running.MOST_RESULT_BYTES


async def test_the_calls_of_a_turn_run_at_the_same_time() -> None:
    async with endpoint(b"") as server:
        agent, there = agent_at(server), [trio.Event(), trio.Event()]

        @agent.tool
        async def meet(number: int) -> str:
            there[number].set()
            await there[1 - number].wait()
            return f"met {number}"

        found = await returned(server, agent, calls(("meet", {"number": 0}), ("meet", {"number": 1})))
        assert found == ["met 0", "met 1"]


async def test_a_model_that_only_calls_tools_comes_to_an_end() -> None:
    async with endpoint(call("look")) as server:
        agent, looked = agent_at(server), list[int]()

        @agent.tool
        async def look() -> str:
            looked.append(1)
            return "nothing"

        assert await say(conversation(agent)) == ["I have called many tools, and come to no answer."]
        assert len(looked) == len(server.requests) - 1 == 10
        assert server.requests[-1]["tool_choice"] == "none"
        server.say(calls(*[("look", {})] * 30), calls(*[("look", {})] * 30), events("Done."))
        looked.clear()
        assert await say(conversation(agent)) == ["Done."]
        assert len(looked) == 32


async def test_what_was_called_is_known_in_the_next_message_as_one_block() -> None:
    async with endpoint(call("weather", city="Rome"), events("Sunny."), events("You asked of Rome.")) as server:
        agent = agent_at(server)

        @agent.tool
        async def weather(city: str) -> str:
            return f"sunny in {city}"

        chat = conversation(agent)
        await say(chat, "Weather in Rome?")
        await say(chat, "What did I ask?")
        roles = [turn["role"] for turn in server.requests[-1]["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
        [used] = [turn for turn in server.requests[-1]["messages"] if turn.get("tool_calls")]
        assert used["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'
        assert told(server) == ["sunny in Rome"]
        no_tools = agent_at(server)
        chat.agent = no_tools
        await say(chat, "And now?")
        assert [turn["role"] for turn in server.requests[-1]["messages"]][1:] == ["user", "assistant"] * 2 + ["user"]
        assert "tools" not in server.requests[-1]


async def test_complete_and_stream_call_tools_only_where_they_are_asked_to() -> None:
    async with endpoint(b"") as server:
        agent, heard = Agent(llm=LLM(base_url=server.base_url, model="small")), list[str]()

        @agent.tool
        async def count() -> int:
            return 42

        @agent.on_message()
        async def answer(chat: Chat, llm: LLM) -> None:
            heard.append(await llm.complete("Why?"))
            heard.append(str(await llm.complete("How many?", int, tools=True)))
            async with llm.stream([{"role": "user", "content": "Again?"}], tools=["count"]) as pieces:
                heard.append("".join([piece async for piece in pieces]))

        server.say(events("So."), call("count"), events("42"), call("count"), events("42 ", "again"))
        await say(conversation(agent))
        assert heard == ["So.", "42", "42 again"]
        assert ["tools" in request for request in server.requests] == [False, True, True, True, True]


async def test_a_sync_handler_has_its_model_call_tools_too() -> None:
    async with endpoint(b"") as server:
        agent = Agent(llm=LLM(base_url=server.base_url, model="small"))

        @agent.tool
        def count() -> int:
            return 42

        @agent.on_message()
        def answer(llm: BlockingLLM, chat: BlockingChat) -> None:
            llm.reply(tools=["count"])
            chat.reply(str(llm.complete("How many?", int, tools=True)))

        server.say(call("count"), events("42!"), call("count"), events("42"))
        assert await say(conversation(agent)) == ["42!", "42"]


async def test_a_model_is_offered_no_more_tools_than_endpoints_take() -> None:
    async with endpoint(events("Hi")) as server:
        agent = agent_at(server)

        async def nothing() -> None: ...

        for number in range(130):
            agent.tool(name=f"tool{number}")(nothing)
        await say(conversation(agent))
        assert [one["function"]["name"] for one in server.requests[0]["tools"]] == [f"tool{n}" for n in range(128)]


async def test_a_tool_that_changes_the_state_or_writes_at_the_end_is_refused_with_the_remedy() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server, state=Counted)

        @agent.tool
        async def count(state: Counted) -> None:
            state.messages += 1

        @agent.tool
        async def keep(store: Store) -> None:
            await store.add("kept")

        server.say(call("count"))
        with pytest.raises(StateInTool, match=r"store\.change"):
            await say(conversation(agent))

        @agent.tool
        async def forget(chat: Chat) -> None:
            await chat.forget()

        server.say(call("forget"))
        with pytest.raises(StateInTool, match="does not forget"):
            await say(conversation(agent))
        server.say(call("keep"))
        with pytest.raises(StoreInTool, match=r"store\.change"):
            await say(conversation(agent))


class Database:
    pass


def test_what_cannot_be_a_tool_is_refused_with_the_remedy() -> None:
    agent = Agent(llm=LLM())

    async def unannotated(city) -> None: ...  # type: ignore[no-untyped-def]
    async def starred(*cities: str) -> None: ...
    async def of_an_object(database: Database) -> None: ...
    async def empty() -> None: ...
    async def generates():  # type: ignore[no-untyped-def]
        yield 1

    for function, remedy in (
        (unannotated, "say what `city` is"),
        (starred, "have names"),
        (of_an_object, "is asked for by type"),
        (generates, "contains a yield"),
    ):
        with pytest.raises(BadHandler, match=remedy):
            agent.tool(function)
    for how, remedy in (
        ({"sensitivity": "secret"}, "low, medium, high"),
        ({"name": "my tool"}, "tool\\(name="),
        ({"timeout": timedelta(hours=1)}, "timeout"),
        ({"approvers": "ann", "sensitivity": "high"}, "ids of users"),
        ({"approvers": ["ann"]}, "nobody is asked"),
    ):
        with pytest.raises(BadHandler, match=remedy):
            agent.tool(**how)(empty)

    @agent.tool
    async def twice() -> None: ...

    with pytest.raises(BadHandler, match="already"):
        agent.tool(twice)
    with pytest.raises(BadHandler, match=r"Agent\(llm=LLM\(\)\)"):
        Agent().tool(twice)


def test_a_routers_tools_are_the_agents() -> None:
    router, agent = Router(), Agent(llm=LLM())

    @router.tool(name="look-up", description="Looks it up.")
    def look_up(word: str) -> str:
        return word

    agent.include(router)
    assert [(tool.name, tool.description) for tool in agent.tools] == [("look-up", "Looks it up.")]


SHAPES: dict[str, Any] = {
    "as specified": [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"at"'}},
        {"index": 0, "function": {"arguments": ': "x"}'}},
    ],
    "without an index, whole (Gemini)": [{"id": "a", "function": {"name": "look", "arguments": '{"at": "x"}'}}],
    "the arguments as an object (Ollama)": [{"index": 0, "function": {"name": "look", "arguments": {"at": "x"}}}],
    "the name with each piece": [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at": '}},
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '"x"}'}},
    ],
    "null beside": [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": None}},
        {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": '{"at": "x"}'}},
    ],
    "a character whose halves come apart": [
        {"index": 0, "id": "a\ud83d", "function": {"name": "look", "arguments": '{"at": "x\ud83d'}},
        {"index": 0, "function": {"arguments": '\ude00"}'}},
    ],
    "half a character, and no more": [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at": "x\ud83d"}'}},
    ],
    "an id of its own with each piece (mlx-openai-server 216, OCI through LiteLLM)": [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at"'}},
        {"index": 0, "id": "b", "function": {"arguments": ': "x"'}},
        {"index": 0, "id": "c", "function": {"name": None, "arguments": "}"}},
    ],
    "likewise, without an index": [
        {"id": "a", "function": {"name": "look", "arguments": '{"at"'}},
        {"id": "b", "function": {"name": "", "arguments": ': "x"}'}},
    ],
    "an empty id behind the first piece (vLLM)": [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "id": "", "function": {"name": None, "arguments": '{"at": "x"}'}},
    ],
    "the index as a text, the name in pieces": [
        {"index": "0", "id": "a", "function": {"name": "lo"}},
        {"index": "0", "function": {"name": "ok", "arguments": '{"at": "x"}'}},
    ],
    "the model's own marks behind the name (vLLM 32587)": [
        {"index": 0, "id": "a", "function": {"name": "look<|channel|>commentary", "arguments": '{"at": "x"}'}},
    ],
    "one object in the place of a list": {
        "index": 0,
        "id": "a",
        "function": {"name": "look", "arguments": {"at": "x"}},
    },
    "whole again behind its pieces": [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at": "x"}'}},
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at": "x"}'}},
    ],
}


@pytest.mark.parametrize("pieces", SHAPES.values(), ids=SHAPES)
async def test_calls_are_read_as_endpoints_send_them(pieces: Any) -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def look(at: str) -> str:
            return f"at {at}"

        sent = [[piece] for piece in pieces] if isinstance(pieces, list) else [pieces]
        body = sse(*(chunk(tool_calls=one) for one in sent), chunk(finish="stop"))
        assert await returned(server, agent, body) in (["at x"], ["at x\U0001f600"], ["at x\ufffd"])
        [made] = server.requests[-1]["messages"][-2]["tool_calls"]
        assert len(made["id"]) in (1, 2, 9)


async def test_two_calls_with_one_index_are_two_and_ids_are_each_another() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def look(at: str) -> str:
            return f"at {at}"

        made = [
            {"index": 0, "id": name, "function": {"name": "look", "arguments": f'{{"at": "{name}"}}'}} for name in "ab"
        ]
        assert await returned(server, agent, sse(*(chunk(tool_calls=[one]) for one in made))) == ["at a", "at b"]
        pieces = [  # as LMDeploy 3412 has it of vLLM
            {"index": 0, "id": "x", "function": {"name": "look", "arguments": ""}},
            {"index": 0, "id": "", "function": {"arguments": '{"at": "a"}'}},
            {"index": 0, "id": "y", "function": {"name": "look", "arguments": ""}},
            {"index": 0, "id": "", "function": {"arguments": '{"at": "b"}'}},
        ]
        assert await returned(server, agent, sse(*(chunk(tool_calls=[one]) for one in pieces))) == ["at a", "at b"]
        for without in ({"id": None}, {"id": None, "index": None}, {"index": None, "id": "same"}):
            nameless = sse(*(chunk(tool_calls=[{**one, **without}]) for one in made))
            assert await returned(server, agent, nameless) == ["at a", "at b"], without
        twins = [{**one, "index": at, "id": "same"} for at, one in enumerate(made)]
        assert await returned(server, agent, sse(chunk(tool_calls=twins))) == ["at a", "at b"]
        ids = [one["tool_call_id"] for one in server.requests[-1]["messages"] if one["role"] == "tool"]
        assert len(set(ids)) == 2


async def test_what_stands_beside_a_call_goes_back_with_it() -> None:
    beside = {"extra_content": {"google": {"thought_signature": "abc"}}}
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def look() -> str:
            return "x"

        body = sse(chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "look"}, **beside}]))
        assert await returned(server, agent, body) == ["x"]
        [made] = server.requests[-1]["messages"][-2]["tool_calls"]
        assert made["extra_content"] == beside["extra_content"]


async def test_a_name_that_a_model_has_made_up_is_told_back_as_endpoints_take_names() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def look() -> None: ...

        assert await returned(server, agent, call("functions.look at 📷" + "x" * 80)) == [running.NO_SUCH_TOOL]
        [made] = server.requests[-1]["messages"][-2]["tool_calls"]
        assert made["function"]["name"] == ("functions_look_at__" + "x" * 80)[:64]


async def test_too_much_of_arguments_is_none() -> None:
    async with endpoint(b"") as server:
        agent = agent_at(server)

        @agent.tool
        async def look(at: str) -> str:
            return at

        [why] = await returned(server, agent, call("look", at="x" * 70_000))
        assert "do not fit" in why
        assert msgspec.json.decode(server.requests[-1]["messages"][-2]["tool_calls"][0]["function"]["arguments"]) == {}
