"""What a supervisor asks about the questions that handlers have open: a group's text that mentions nobody may be the answer to one."""

from typing import cast

import msgspec

from bus.records.kept import WAIT, is_wait, open_kept
from bus.records.keys import Keys
from bus.records.records import BadRecord
from bus.records.saved import pairs
from bus.records.sealing import BusKey
from bus.transport.client import Commands
from host.unreadable import UNREADABLE


class _Question(msgspec.Struct):
    """The part of a wait (workers/kept/waits.py) that says whose words answer it."""

    kind: str
    who: list[str]


class OpenQuestions:
    """The open questions of one agent."""

    def __init__(self, client: Commands, keys: Keys, bus_key: BusKey) -> None:
        self._client = client
        self._keys = keys
        self._bus_key = bus_key

    async def await_words_of(self, person: str, conversation_id: str) -> bool:
        """Returns whether a text of this person may answer a question there; also where this version cannot read one. Raises RedisFailed."""
        return bool(await self.asked(person, conversation_id, for_words=False))

    async def asked(self, person: str, conversation_id: str, *, for_words: bool) -> str:
        """Returns the latest open question to this person there, of those that are texts if `for_words`; '' for none. Raises RedisFailed.

        One that this version cannot read counts: the worker that is given the text says what is wrong with it.
        """
        found = cast("list[bytes]", await self._client.command("HGETALL", self._keys.waits(conversation_id)))
        theirs = (
            name.decode()
            for name, record in pairs(found)
            if is_wait(name) and self._awaits(person, conversation_id, name.decode(), record, for_words=for_words)
        )
        return max(theirs, default="")  # their ids begin with the time

    def _awaits(self, person: str, conversation_id: str, wait_id: str, record: bytes, *, for_words: bool) -> bool:
        try:
            body = open_kept(record, WAIT, conversation_id, wait_id, key=self._bus_key, agent_id=self._keys.agent_id)
            question = msgspec.msgpack.decode(body, type=_Question)
        except (BadRecord, *UNREADABLE):
            return True
        return person in question.who and (question.kind == "text" or not for_words)
