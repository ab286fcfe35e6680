"""A relay on this machine, an agent's account at it, and a person who talks to wherever the agent runs."""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from sandbox.api import ApiRefused, RelayApi
from sandbox.children import relay_process
from sandbox.people import Person, connected, make_person
from sandbox.stage import free_port
from tests.waiting import waiting_for

ANSWER_SECONDS = 90.0


@dataclass
class Talk:
    """`settings`: what the agent's environment needs, the secrets too."""

    settings: dict[str, str]
    api: RelayApi
    person: Person
    conversation: str
    said: list[str] = field(default_factory=list)

    @property
    def agent_id(self) -> str:
        return self.settings["HASHEE_AGENT_ID"]

    async def say(self, text: str) -> None:
        """The first message waits until the agent has published its keys."""
        with waiting_for(f"{text!r} to be said", ANSWER_SECONDS):
            while True:
                try:
                    await self.person.say(self.conversation, text)
                except ApiRefused:
                    await trio.sleep(0.1)
                else:
                    break
        self.said.append(text)

    async def until_answered(self) -> float:
        """Everything said was answered once, in order, by the echo; how long that took."""
        began = trio.current_time()
        transcript = self.person.transcript
        with trio.move_on_after(ANSWER_SECONDS):
            await transcript.until(lambda: len(transcript.heard(self.conversation)) >= len(self.said))
        assert transcript.heard(self.conversation) == [f"echo: {text}" for text in self.said]
        assert not self.person.unreadable
        return trio.current_time() - began

    async def connectionless_ms(self) -> int:
        """For how long the agent had no connection to the relay, in all, since its first."""
        return (await self.api.stats()).owners[self.agent_id]["connectionless_ms"]

    async def converse(self, *texts: str) -> float:
        """Say them all, wait for all answers."""
        for text in texts:
            await self.say(text)
        return await self.until_answered()


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Talk]:
    """The person is connected; the agent does not run yet."""
    async with relay_process(log_path=folder / "relay.log") as (_, url), RelayApi(url) as api:
        account = await api.add_agent("Echo")
        settings = {
            "HASHEE_AGENT_ID": account.agent_id,
            "HASHEE_AGENT_TOKEN": account.token,
            "HASHEE_X25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
            "HASHEE_ED25519_PRIVATE_BASE64": base64.b64encode(os.urandom(32)).decode(),
            "HASHEE_BASE_URL": url,
            "HASHEE_HTTP_PORT": str(free_port()),
            "HASHEE_SEND_RATE": "0",
        }
        person = await make_person(url, "Ada")
        conversation = await person.meet(account.agent_id)
        async with connected(person):
            yield Talk(settings, api, person, conversation)
