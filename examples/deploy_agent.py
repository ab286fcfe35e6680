"""Says what something outside tells it, such as the script of a deployment:

hashee-agent send --to CONVERSATION --key deploy-42 --reminder deploy --data '{"version": "42"}'
"""

import msgspec

from workers import Agent, Chat

agent = Agent()


class Deployed(msgspec.Struct):
    """What `--data` has."""

    version: str


@agent.on_reminder("deploy")
async def deployed(chat: Chat, data: Deployed) -> None:
    await chat.reply(f"Version {data.version} is out.")
