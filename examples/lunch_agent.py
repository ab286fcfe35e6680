"""A vote about lunch, on one card that everybody sees change. The state knows which card it is and who has voted."""

from datetime import timedelta

import msgspec

from workers import Agent, Answer, App, Chat


class Lunch(msgspec.Struct):
    """What is kept of each conversation."""

    card: str = ""
    votes: dict[str, str] = {}


agent = Agent(state=Lunch)


@agent.on_command("vote")
async def start(chat: Chat, state: Lunch) -> None:
    state.votes = {}
    state.card = (await chat.reply(App("vote_card", shown(state)))).id
    await chat.remind("close", after=timedelta(minutes=30), key="close")  # key: replaces


@agent.on_artifact_response("vote_card")
async def vote(answer: Answer, chat: Chat, state: Lunch) -> None:
    if answer.card_id == state.card and answer.sender_id not in state.votes:
        state.votes[answer.sender_id] = answer.payload["option"]
        await chat.update(state.card, shown(state))


@agent.on_reminder("close")
async def close(chat: Chat, state: Lunch) -> None:
    await chat.update(state.card, shown(state, closed=True))
    state.card = ""


def shown(state: Lunch, *, closed: bool = False) -> dict[str, object]:
    votes = list(state.votes.values())
    return {"options": {option: votes.count(option) for option in ("soup", "stew")}, "closed": closed}
