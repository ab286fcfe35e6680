"""What `hashee-agent dev` takes besides words: the commands of the console, for an agent in processes of its own."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from bus.records.records import BadRecord
from bus.transport.wire import RedisFailed
from crypto.errors import Unreadable
from sandbox.api import ApiRefused
from sandbox.chat import ChatScreen, Commands, Place
from sandbox.dev_people import YOU, Company
from sandbox.dev_store import CannotLook, DevStore
from sandbox.group_people import GroupPerson
from sandbox.people import NO_CONNECTION
from sandbox.typed import seconds_in

HELP: Final = """\
Lines are said to the agent. Besides:
  #1            presses the first button of the last card; so does 1 right below it
  -             leaves a field of a form empty
  /cancel       leaves a form, or ends a question
  /as NAME      talk as somebody else; /as you is you again
  /group [NAME] in a group, /as NAME there is another member      /direct  alone with the agent again
  ~ words       in a group, not to the agent
  /file PATH    sends a file
  /time +10m    what is due within that time comes now (s, m, h, d); the clock itself stays
  /kill         kills every worker; what runs runs again
  /state        what is kept of this conversation                 /trace   what was done here since the last /trace
  //state       says /state to the agent                          /quit    ends (Ctrl-D too)"""

REFUSED: Final = (CannotLook, ApiRefused, BadRecord, RedisFailed, Unreadable, *NO_CONNECTION)


class DevCommands:
    """The commands of one chat."""

    def __init__(self, screen: ChatScreen, company: Company, store: DevStore) -> None:
        self._screen = screen
        self._company = company
        self._store = store
        self._traced: dict[Place, int] = {}

    @property
    def by_word(self) -> Commands:
        """Returns them by the word that each begins with."""
        commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/?": self._help,
            "/as": self._as,
            "/group": self._group,
            "/direct": self._direct,
            "/time": self._time,
            "/kill": self._kill,
            "/state": self._state,
            "/trace": self._trace,
        }
        return {word: self._guarded(command) for word, command in commands.items()}

    def _guarded(self, command: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
        """Returns the command; what it meets outside is said, and the chat goes on."""

        async def run(rest: str) -> None:
            try:
                await command(rest)
            except REFUSED as error:
                self._screen.say(f"that could not be done: {error}")

        return run

    async def _help(self, _rest: str) -> None:
        self._screen.say(HELP)

    async def _as(self, name: str) -> None:
        if not name or len(name.split()) > 1:
            self._screen.say(f"you are {self._screen.person.name}; /as NAME is somebody else, by one word")
            return
        person = await self._company.person(name)
        group = self._screen.place.name
        place = await (self._company.group(group, person) if group else self._company.alone(person))
        self._screen.enter(person, place)
        self._tell_where()

    async def _group(self, name: str) -> None:
        person = await self._me()
        self._screen.enter(person, await self._company.group(name or "group", person))
        self._tell_where()

    async def _direct(self, _rest: str) -> None:
        person = await self._me()
        self._screen.enter(person, await self._company.alone(person))
        self._tell_where()

    async def _me(self) -> GroupPerson:
        return await self._company.person(self._screen.person.name)

    def _tell_where(self) -> None:
        name = self._screen.person.name
        self._screen.say(f"you are {'yourself' if name == YOU else name}, {self._screen.place.in_words}")

    async def _time(self, rest: str) -> None:
        seconds = seconds_in(rest)
        if seconds is None:
            self._screen.say("/time +10m has what is due within ten minutes come now (s, m, h, d)")
            return
        came = await self._store.pass_time(seconds)
        what = {0: "nothing was due", 1: "one thing came due"}.get(came, f"{came} things came due")
        self._screen.say(f"{what}; what is left is due {timedelta(seconds=seconds)} earlier, and the clock stays")

    async def _kill(self, _rest: str) -> None:
        pids = await self._store.kill_workers()
        self._screen.say(f"{len(pids)} workers are killed, and others begin; what ran runs again")

    async def _state(self, _rest: str) -> None:
        state = await self._store.state(self._screen.place.conversation_id)
        self._screen.say(
            "nothing is kept of this conversation"
            if state is None
            else json.dumps(state, ensure_ascii=False, indent=2, default=str)
        )

    async def _trace(self, _rest: str) -> None:
        place = self._screen.place
        traced = await self._store.trace(place.conversation_id)
        begin, self._traced[place] = self._traced.get(place, 0), len(traced)
        self._screen.say("\n".join(traced[begin:]) or "nothing was done here since")
