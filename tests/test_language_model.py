"""The agent that comes with the runtime, set up by the environment alone, through relay, Redis, supervisor and workers."""

from pathlib import Path

import pytest

from tests.test_asking import heard
from tests.test_kills import kill_every_worker
from tests.workers.llm.endpoint import Answer, endpoint, events
from tests.world import world
from workers.kept.words import Words


@pytest.mark.long
async def test_a_model_is_talked_to_and_a_worker_that_dies_in_its_answer_costs_nobody_a_word(tmp_path: Path) -> None:
    half = Answer(body=events("Ah", finish=False), then="silence")
    async with endpoint(half, events("Ahoy!", usage=(7, 2))) as server:
        how = {"OPENAI_BASE_URL": server.base_url, "HASHEE_LLM_MODEL": "parrot"}
        async with world(tmp_path, HASHEE_HANDLER="", HASHEE_STRIKES="off", HASHEE_WORKERS="1", **how) as w:
            [ada] = w.people
            conversation = w.conversations[ada]
            await ada.say(conversation, "hello")
            await w.until(lambda: len(server.requests) == 1)
            await kill_every_worker(w)
            await heard(w, ada, "Ahoy!")
            await ada.say(conversation, "what did I say?")
            await heard(w, ada, "Ahoy!", "Ahoy!")
            await w.until(
                lambda: 'business_llm_tokens_total{kind="completion",model="parrot"} 4.0' in w.page("/metrics")
            )
    assert [text for _, text in server.asked[-1]][1:] == ["hello", "Ahoy!", "what did I say?"]
    assert len(server.requests) == 3


@pytest.mark.long
async def test_stop_ends_the_answer_that_grows_before_a_person_s_eyes(tmp_path: Path) -> None:
    endless = Answer(body=events("Once upon", finish=False), then="silence")
    async with endpoint(endless, events("Ahoy!")) as server:
        how = {"OPENAI_BASE_URL": server.base_url, "HASHEE_LLM_MODEL": "parrot"}
        async with world(tmp_path, HASHEE_HANDLER="", HASHEE_WORKERS="1", **how) as w:
            [ada] = w.people
            conversation = w.conversations[ada]
            await ada.say(conversation, "tell me a story")
            await w.until(lambda: conversation in ada.growing and ada.growing[conversation].text == "Once upon")
            await ada.say(conversation, "/stop")
            await heard(w, ada, "Once upon\n\n[Stopped.]")
            await ada.say(conversation, "/stop")
            await heard(w, ada, "Once upon\n\n[Stopped.]", Words().nothing_to_stop)
            await ada.say(conversation, "go on")
            await heard(w, ada, "Once upon\n\n[Stopped.]", Words().nothing_to_stop, "Ahoy!")
    assert [text for _, text in server.asked[-1]][1:3] == ["tell me a story", "Once upon\n\n[Stopped.]"]
