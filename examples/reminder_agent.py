"""Reminds people of what they ask for, and sends a digest each morning."""

from datetime import timedelta

from workers import Agent, Chat, Job

agent = Agent()


@agent.on_message("text", when=r"remind me in (?P<minutes>\d+) minutes? to (?P<what>.+)")
async def remind(chat: Chat, minutes: int, what: str) -> None:
    await chat.remind("say", after=timedelta(minutes=minutes), data=what)
    await chat.reply("I will.")


@agent.on_reminder("say")
async def say(chat: Chat, data: str) -> None:
    await chat.reply(f"⏰ {data}")


@agent.on_command("digest")
async def subscribe(chat: Chat) -> None:
    await chat.remind("digest", daily="08:00", tz="Europe/Berlin")  # daily: its name is its key
    await chat.reply("Each morning at eight.")


@agent.on_reminder("digest")
async def digest(chat: Chat, job: Job) -> None:
    await chat.reply("Good morning!" if job.lateness < timedelta(hours=1) else "This is late today, sorry.")


@agent.on_command("enough")
async def unsubscribe(chat: Chat) -> None:
    await chat.forget_reminder("digest")
    await chat.reply("No more digests.")
