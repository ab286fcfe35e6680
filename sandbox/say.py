"""One person who says one thing to an agent and waits for an answer: for `hashee-agent doctor --leak-test`."""

import trio

from sandbox.people import connected, make_person

ANSWER_SECONDS = 30.0


async def say_once(url: str, agent_id: str, text: str) -> bool:
    """Whether the agent has answered. Raises `ApiRefused` or httpx2's errors where this is no sandbox relay or the agent is not its."""
    person = await make_person(url, "Canary")
    conversation_id = await person.meet(agent_id)
    async with connected(person):
        await person.say(conversation_id, text)
        with trio.move_on_after(ANSWER_SECONDS):
            await person.transcript.until(lambda: bool(person.transcript.heard(conversation_id)))
        return bool(person.transcript.heard(conversation_id))
