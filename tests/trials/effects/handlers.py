"""An agent with the fault that the walk must find: it counts in its own memory, and dies with it."""

from workers import Agent, Chat, Message

forgetful = Agent()
counted = dict[str, int]()


@forgetful.on_message("text")
async def count(message: Message, chat: Chat) -> None:
    where = message.conversation_id
    counted[where] = counted.get(where, 0) + 1
    await chat.reply(str(counted[where]))
