"""A person with a grant who sends what no app would: envelopes of 1 MB that nobody can open, and pings without end."""

import os

from crypto import msgpack, strict_base64
from crypto.envelope import Body, Envelope, Expected, parse_envelope
from crypto.identity import IdentityKeys
from crypto.wraps import RatchetWrap
from sandbox.api import RelayApi
from sandbox.people import Person
from sandbox.ulid import new_ulid
from supervisor.relay.frames import MessageSend, encode

MESSAGE_CHARS = 760_000
"""Of text, so that its envelope is just under the 1 MiB that PROTOCOL §5 allows after base64."""

SESSION_BYTES = 16


class HostilePerson(Person):
    """Signs like everybody, where a signature helps."""

    async def send_unreadable(self, conversation_id: str, number: int) -> None:
        """In turn: under a session that nobody knows, with a broken content, with a broken signature."""
        client_message_id = new_ulid()
        payload: dict[str, object] = {"type": "text", "text": "x" * MESSAGE_CHARS}
        async with self._sealing:
            sealed = await self._seal(conversation_id, client_message_id, payload)
        broken = (self._with_other_session, self._with_other_content, self._unsigned)[number % 3]
        frame = MessageSend(client_message_id, conversation_id, "text", broken(conversation_id, sealed))
        self._outgoing.add(client_message_id, encode(frame))

    async def send_ping(self, conversation_id: str) -> None:
        """Asks for a `session.pong`."""
        await self._send(conversation_id, {"type": "system", "event": {"kind": "session.ping"}})

    def _with_other_session(self, conversation_id: str, sealed: str) -> str:
        envelope = self._parsed(conversation_id, sealed)
        wraps = [
            RatchetWrap(wrap.to, os.urandom(SESSION_BYTES), wrap.header, wrap.salt, wrap.wrapped_key)
            for wrap in envelope.wraps
            if isinstance(wrap, RatchetWrap)
        ]
        return self._signed(envelope, wraps=wraps)

    def _with_other_content(self, conversation_id: str, sealed: str) -> str:
        envelope = self._parsed(conversation_id, sealed)
        return self._signed(envelope, ciphertext=os.urandom(len(envelope.ciphertext)))

    def _unsigned(self, conversation_id: str, sealed: str) -> str:
        envelope = self._parsed(conversation_id, sealed)
        return strict_base64.encode(msgpack.encode([self._body(envelope), os.urandom(64)]))

    def _parsed(self, conversation_id: str, sealed: str) -> Envelope:
        return parse_envelope(sealed, Expected(conversation_id, self.account.user_id))

    @staticmethod
    def _body(envelope: Envelope, **changes: object) -> bytes:
        fields = {name: getattr(envelope, name) for name in Body.__struct_fields__} | changes
        return msgpack.encode(Body(**fields))

    def _signed(self, envelope: Envelope, **changes: object) -> str:
        body = self._body(envelope, **changes)
        signature = self.identity.sign(b"hashee-sign-v1\x00" + body)
        return strict_base64.encode(msgpack.encode([body, signature]))


async def make_hostile_person(url: str, name: str) -> HostilePerson:
    """Registered, not connected."""
    async with RelayApi(url) as api:
        account = await api.add_person(name)
    made = HostilePerson(url, name, account, IdentityKeys.generate(os.urandom))
    await made.register()
    return made
