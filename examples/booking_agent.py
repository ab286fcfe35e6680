"""Books a day: two questions, then a card to approve. The answers may come days later, and the agent may die in between."""

from datetime import date

from workers import Agent, Approval, Chat

agent = Agent()


@agent.on_command("book")
async def book(chat: Chat) -> None:
    name = await chat.ask("Your name?")
    day = await chat.ask("Which day?", date)  # asks again until it is one
    if await chat.ask(Approval(f"{name} on {day}?")):
        await chat.reply("Booked.")
