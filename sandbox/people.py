"""A simulated person at one device: real keys, real handshake and ratchet, and a connection that always comes back.

What `say` returns an id for will be sent, with the same bytes until it is acknowledged; what the agent said is read
once each, pushed or fetched. A second device of the same person is another `Person` made with `other_device`.
"""

import mimetypes
import os
import random
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile

import httpx2
import msgspec
import trio

from crypto import strict_base64
from crypto.envelope import Expected
from crypto.errors import Reason, Unreadable
from crypto.files import Attachment
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import bundle_from_json
from crypto.renewal import Renewal
from sandbox.api import ApiRefused, PersonAccount, RelayApi
from sandbox.background import background
from sandbox.cards import TOOL_CALL, Cards
from sandbox.device_state import DeviceState, Received
from sandbox.files import FILE_KINDS, HeardFile, download, file_line, files_of, free_path, upload
from sandbox.heard_streams import HeardStreams
from sandbox.outgoing import Outgoing
from sandbox.transcript import Transcript, TranscriptLine
from sandbox.ulid import new_ulid
from supervisor.relay.frames import (
    ArtifactAnswer,
    ArtifactResponse,
    Auth,
    AuthOk,
    MalformedFrame,
    MessageAck,
    MessageError,
    MessageNew,
    MessageRecalled,
    MessageSend,
    Ping,
    PlatformEvent,
    Pong,
    PrekeysLow,
    StreamAbort,
    StreamDelta,
    StreamStart,
    TypingStart,
    TypingStop,
    decode_for_person,
    encode,
)
from supervisor.relay.websocket import BinaryMessageRefused, ConnectFailed, ConnectionLost, WebSocket, open_websocket

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0
"""A person's app comes back sooner than an agent: tests wait for it, and there are few of them."""

MOST_TEXTS = 1000
"""Of the agent's latest messages, which it may take back."""

MENTION = re.compile(r"@<U:([^<>\s]+)>")
SILENCE_SECONDS = 10.0
PONG_SECONDS = 5.0
RETRY_500_SECONDS = 0.5

NO_CONNECTION = (ConnectFailed, ConnectionLost, httpx2.TransportError)


class Person:
    """Made by `make_person`; connected within `async with connected(person)`."""

    def __init__(
        self, url: str, name: str, account: PersonAccount, identity: IdentityKeys, device_id: str | None = None
    ) -> None:
        """`device_id`: of a device that was there before; else it is a new one."""
        self.url = url
        self.name = name
        self.account = account
        self.identity = identity
        self.device = LocalDevice(account.user_id, device_id or str(uuid.uuid4()), identity)
        self.transcript = Transcript()
        self.typing: set[str] = set()
        self.unreadable: Counter[Reason] = Counter()
        self.versions: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.connected = False
        self.envelopes: set[str] = set()
        """Whatever the agent has sent, pushed or fetched."""
        self._api = RelayApi(url, account.access_token)
        self._state = DeviceState(self.device)
        self.recalled: list[str] = []
        """The texts that the agent has taken back."""
        self.reactions: dict[str, object] = {}
        """The emoji at each message_id, None where it was taken back."""
        self.quotes: dict[str, str] = {}
        """What each text that quotes a message quotes; '' for a message that was not read here."""
        self._texts: dict[str, str] = {}
        self._cards = Cards()
        self.cards = self._cards.shown
        """The agent's cards by their ids, as they are shown now."""
        self.files: list[HeardFile] = []
        """What the agent has sent of files, in any kind of message."""
        self.tools: Mapping[str, Callable[[Mapping[str, object]], object]] | None = None
        """What this person's app can do, and allows, by name; None for one that answers no call of a tool by itself."""
        self._streams = HeardStreams(lambda: self._state, self.counts)
        self.growing = self._streams.growing
        self._outgoing = Outgoing()
        self._agents: dict[str, str] = {}
        self._last_seq: dict[str, int] = {}
        self._sealing = trio.Lock()

    # --- before and around the conversation ---

    async def register(self) -> None:
        """Publishes identity and prekeys, and again more one-time prekeys."""
        await self._api.call("POST", "/users/me/devices", dict[str, object], self._state.registration())

    async def meet(self, agent_id: str) -> str:
        """Makes the relation with an agent; returns the conversation_id."""
        conversation_id = await self._api.relate(self.account.user_id, agent_id)
        self.join(conversation_id, agent_id)
        return conversation_id

    def join(self, conversation_id: str, agent_id: str) -> None:
        """Takes part in a conversation that exists."""
        self._agents[conversation_id] = agent_id
        self._last_seq.setdefault(conversation_id, 0)

    def other_device(self) -> "Person":
        """The same person at another device: its own prekeys, sessions and transcript."""
        return Person(self.url, self.name, self.account, self.identity)

    def accept_keys(self, owner_id: str) -> None:
        """Takes an owner's new keys, as a person does who was told that they have changed."""
        self._state.accept_keys(owner_id)

    def forget_sessions(self) -> None:
        """Loses every ratchet and keeps the keys."""
        self._state.forget_sessions()

    # --- talking ---

    async def say(self, conversation_id: str, text: str) -> str:
        """Seals it now and sends it as soon as there is a connection. Returns its client_message_id.

        Who stands in the text as `@<U:user_id>` is mentioned. Raises `ApiRefused` or httpx2's errors where a session has to be started and the agent's keys cannot be had,
        `Unreadable` where they do not count.
        """
        payload: dict[str, object] = {"type": "text", "text": text}
        if mentions := MENTION.findall(text):
            payload["mentions"] = mentions
        client_message_id = await self._send(conversation_id, payload, text)
        self.counts["said"] += 1
        agent_id = self._agents[conversation_id]
        if self._state.ping_is_due(agent_id, agent_id):
            await self._send(conversation_id, _event("session.ping"))
        return client_message_id

    async def send_file(self, conversation_id: str, source: Path | bytes, *, name: str = "", kind: str = "file") -> str:
        """Seals and uploads a file now, and sends it as `say` does. `kind`: file, image, video or audio. Returns its client_message_id.

        Raises OSError too, where it cannot be read.
        """
        attachment = await self.attach(conversation_id, source, name=name)
        payload: dict[str, object] = {
            "type": kind,
            "attachment_id": attachment.attachment_id,
            "attachments": [attachment.to_payload()],
        }
        if kind == "file":
            payload |= {"filename": attachment.filename, "mime": attachment.mime, "size": attachment.size}
        return await self._send(conversation_id, payload, file_line(attachment.filename, attachment.size))

    async def attach(self, conversation_id: str, source: Path | bytes, *, name: str = "") -> Attachment:
        """Seals and uploads a file now, for a payload that is sent then. Raises as `send_file`."""
        filename = name or (source.name if isinstance(source, Path) else "file")
        mime = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        with source.open("rb") if isinstance(source, Path) else TemporaryFile() as file:
            if isinstance(source, bytes):
                file.write(source)
                file.seek(0)
            return await upload(self._api, conversation_id, file, filename=filename, mime=mime)

    async def read_file(self, heard: HeardFile) -> bytes:
        """Fetches and opens a file of the agent's. Raises Unreadable, `ApiRefused` or httpx2's errors."""
        with TemporaryFile() as file:
            await download(self._api, heard, file)
            file.seek(0)
            return file.read()

    async def save_file(self, heard: HeardFile, folder: Path) -> Path:
        """Fetches and opens one into a folder, under a name that is free there. Returns where; nothing is there where it raises as `read_file`."""
        path = free_path(folder, heard.name)
        with path.open("xb") as file:
            try:
                await download(self._api, heard, file)
            except BaseException:
                path.unlink()
                raise
        return path

    async def answer(
        self, conversation_id: str, card_id: str, payload: dict[str, object], *, files: Sequence[Attachment] = ()
    ) -> str:
        """Answers a card (PROTOCOL §4.1), such as with `{"action": "stop"}`; as `say`. Returns its client_message_id.

        `files`: what the values of a form name by `attachment_id`.
        """
        artifact: dict[str, object] = {"subtype": "response", "ref_artifact": card_id, "payload": payload}
        if card_id in self.cards and self.cards[card_id].subtype == TOOL_CALL:
            artifact = {"subtype": "tool_response", "payload": {"call_id": card_id, **payload}}
        client_message_id = new_ulid()
        async with self._sealing:
            said: dict[str, object] = {"type": "artifact", "artifact": artifact}
            if files:
                said["attachments"] = [one.to_payload() for one in files]
            sealed = await self._seal(conversation_id, client_message_id, said)
            frame = ArtifactAnswer(client_message_id, conversation_id, sealed)
            self._outgoing.add(client_message_id, encode(frame))
        return client_message_id

    async def decide(self, conversation_id: str, card_id: str, *, approve: bool) -> str:
        """Answers an approval that was shown; as `answer`."""
        decision = "approved" if approve else "rejected"
        shown_hash = self.cards[card_id].question_hash
        return await self.answer(conversation_id, card_id, {"decision": decision, "question_hash": shown_hash})

    @property
    def unacknowledged(self) -> int:
        return self._outgoing.unacknowledged

    async def _send(self, conversation_id: str, payload: dict[str, object], text: str | None = None) -> str:
        client_message_id = new_ulid()
        async with self._sealing:
            sealed = await self._seal(conversation_id, client_message_id, payload)
            if text is not None:
                line = TranscriptLine("out", text, client_message_id, None, trio.current_time())
                self.transcript.add(conversation_id, line)
            frame = MessageSend(client_message_id, conversation_id, str(payload["type"]), sealed)
            self._outgoing.add(client_message_id, encode(frame))
        return client_message_id

    async def _seal(self, conversation_id: str, client_message_id: str, payload: dict[str, object]) -> str:
        agent_id = self._agents[conversation_id]
        if not self._state.may_send(agent_id, agent_id):
            await self._start_session(agent_id)
        return self._state.seal(agent_id, [agent_id], conversation_id, client_message_id, payload)

    async def _start_session(self, agent_id: str) -> None:
        entry = await self._api.call("GET", f"/keys/agents/{agent_id}", dict[str, object])
        self._state.start_session(bundle_from_json(entry, agent_id))
        self.counts["sessions_started"] += 1
        self.transcript.notify()

    # --- the connection ---

    async def run(self) -> None:
        """Keeps a connection until cancelled: authenticates, catches up, sends what is unsent, reads."""
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                async with open_websocket(f"ws{self.url.removeprefix('http')}/ws/human") as socket:
                    await self._authenticate(socket)
                    retry_seconds = FIRST_RETRY_SECONDS
                    await self._converse(socket)
            except NO_CONNECTION:
                self.counts["connections_lost"] += 1
            except ApiRefused as refused:
                self.counts[f"refused_{refused.status}"] += 1
            await trio.sleep(retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            retry_seconds = min(LAST_RETRY_SECONDS, 2 * retry_seconds)

    async def close(self) -> None:
        await self._api.close()

    async def _authenticate(self, socket: WebSocket) -> None:
        await socket.send(encode(Auth(self.account.access_token, device_id=self.device.device_id)))
        answer = decode_for_person(await socket.receive())
        if not isinstance(answer, AuthOk):
            raise ConnectionLost(None, "authentication refused")

    async def _converse(self, socket: WebSocket) -> None:
        """Raises `ConnectionLost` when the connection is gone."""
        await self._catch_up()
        self._outgoing.again()
        async with background() as nursery:
            nursery.start_soon(self._write, socket)
            nursery.start_soon(self._watch, socket)
            self.connected = True
            self.transcript.notify()
            try:
                await self._read(socket, nursery)
            finally:
                self.connected = False

    async def _write(self, socket: WebSocket) -> None:
        while True:
            text = await self._outgoing.next()
            try:
                await socket.send(text)
            except ConnectionLost:
                return

    async def _watch(self, socket: WebSocket) -> None:
        """A link that is silent is pinged; one that stays silent is given up."""
        while True:
            await trio.sleep_until(socket.heard_at + SILENCE_SECONDS)
            if trio.current_time() < socket.heard_at + SILENCE_SECONDS:
                continue
            try:
                with trio.fail_after(PONG_SECONDS):
                    await socket.ping()
            except (trio.TooSlowError, ConnectionLost):
                await socket.close()
                return

    async def _catch_up(self) -> None:
        for conversation_id in self._agents:
            while entries := await self._missed(conversation_id):
                for entry in entries:
                    frame = decode_for_person(bytes(entry))
                    if isinstance(frame, MessageNew):
                        await self._hear_message(frame)
                    elif isinstance(frame, ArtifactResponse):
                        self._note_seq(frame)

    async def _missed(self, conversation_id: str) -> list[msgspec.Raw]:
        after = self._last_seq[conversation_id]
        path = f"/conversations/{conversation_id}/messages?after_seq={after}"
        return await self._api.call("GET", path, list[msgspec.Raw])

    def _note_seq(self, frame: MessageNew | ArtifactResponse) -> None:
        known = self._last_seq.get(frame.conversation_id, 0)
        self._last_seq[frame.conversation_id] = max(known, frame.conversation_seq)

    # --- hearing ---

    async def _read(self, socket: WebSocket, nursery: trio.Nursery) -> None:
        while True:
            try:
                frame = decode_for_person(await socket.receive())
            except (MalformedFrame, BinaryMessageRefused):
                self.counts["malformed_frames"] += 1
                continue
            match frame:
                case Ping():
                    await socket.send(encode(Pong()))
                case MessageNew():
                    await self._hear_message(frame)
                case MessageAck():
                    self._acknowledge(frame)
                case MessageError():
                    nursery.start_soon(self._refused, frame)
                case StreamStart() | StreamDelta() | StreamAbort():
                    self._hear_stream(frame)
                case TypingStart() | TypingStop():
                    self._hear_typing(frame)
                case MessageRecalled():
                    self.recalled.append(self._texts.get(frame.message_id, frame.message_id))
                    self.transcript.notify()
                case PlatformEvent(frame_type="reaction.update"):
                    self.reactions[str(frame.fields.get("message_id"))] = frame.fields.get("emoji")
                    self.transcript.notify()
                case PrekeysLow():
                    await self.register()
                case _:
                    self.counts["frames_passed_over"] += 1

    def _acknowledge(self, ack: MessageAck) -> None:
        self._outgoing.acknowledged(ack.client_message_id)
        for conversation_id in self._agents:
            self.transcript.acknowledged(conversation_id, ack.client_message_id, ack.conversation_seq)

    async def _refused(self, error: MessageError) -> None:
        self.counts[f"send_refused_{error.code}"] += 1
        if error.code in {"429", "500"}:
            await trio.sleep(error.retry_after or RETRY_500_SECONDS)
            self._outgoing.again(error.client_message_id)
        else:
            self._outgoing.acknowledged(error.client_message_id)
            self.transcript.notify()

    async def _hear_message(self, frame: MessageNew) -> None:
        """Read to its end before it counts as read: what is cut short by a lost connection is fetched again."""
        if frame.sender_id != self.account.user_id:
            received = await self._open(frame)
            if received is not None:
                await self._read_payload(frame, received)
        self._note_seq(frame)

    async def _read_payload(self, frame: MessageNew, received: Received) -> None:
        conversation_id = frame.conversation_id
        self.versions.add(received.envelope.v)
        self.typing.discard(conversation_id)
        self.growing.pop(conversation_id, None)
        kind, text, card_id = received.payload.get("type"), received.payload.get("text"), ""
        if kind == "artifact":
            card = self._cards.read(received.payload)
            self.counts["cards_shown" if card is not None else "cards_passed_over"] += 1
            text, card_id = (None, "") if card is None else (card.text, card.card_id)
            if card is not None and card.subtype == TOOL_CALL and self.tools is not None:
                await self.answer(conversation_id, card.card_id, card.run_by(self.tools))
        heard = files_of(conversation_id, received.payload)
        self.files += heard
        if kind in FILE_KINDS and heard:
            text = "\n".join(file_line(one.name, one.attachment.size) for one in heard)
        if kind in ("text", "artifact", *FILE_KINDS) and isinstance(text, str):
            line = TranscriptLine(
                "in",
                text,
                received.envelope.client_message_id,
                frame.conversation_seq,
                trio.current_time(),
                card_id,
                frame.sender_id,
            )
            self._texts[frame.message_id] = text
            if isinstance(quoted := received.payload.get("reply_to"), dict):
                self.quotes[text] = self._texts.get(str(quoted.get("message_id")), "")
            if len(self._texts) > MOST_TEXTS:
                del self._texts[next(iter(self._texts))]
            self.transcript.add(conversation_id, line)
        elif kind == "system":
            await self._hear_system(frame, received.payload.get("event"))
        else:
            self.counts[f"payload_{kind}"] += 1

    async def _open(self, frame: MessageNew) -> Received | None:
        self.envelopes.add(frame.encrypted_payload)
        expected = Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
        try:
            if not self._state.knows(frame.sender_id):
                entry = await self._api.call("GET", f"/keys/agents/{frame.sender_id}", dict[str, object])
                self._state.pin(bundle_from_json(entry, frame.sender_id))
            return self._state.open(frame.encrypted_payload, expected)
        except Unreadable as failure:
            await self._unreadable(frame, failure.reason)
            return None

    async def _unreadable(self, frame: MessageNew, reason: Reason) -> None:
        if reason is Reason.DUPLICATE:
            self.counts["duplicates"] += 1
            return
        self.unreadable[reason] += 1
        self.transcript.notify()
        agent_id = frame.sender_id
        if self._agents.get(frame.conversation_id) != agent_id:
            return
        wrap = self._state.wrap_of(frame.encrypted_payload, Expected(frame.conversation_id, agent_id))
        renewal = self._state.renewal_due(agent_id, reason, wrap)
        if renewal is Renewal.NONE:
            return
        if renewal is Renewal.NEW:
            async with self._sealing:
                await self._start_session(agent_id)
        lost = {} if wrap is None else {"lost": strict_base64.encode(wrap.session)}
        await self._send(frame.conversation_id, _event("session.renewed", **lost))

    async def _hear_system(self, frame: MessageNew, event: object) -> None:
        kind, lost = (event.get("kind"), event.get("lost")) if isinstance(event, dict) else (None, None)
        self.counts[f"event_{kind}"] += 1
        if kind == "session.ping":
            await self._send(frame.conversation_id, _event("session.pong"))
        elif kind == "session.renewed" and isinstance(lost, str):
            self._state.never_send_on(frame.sender_id, strict_base64.decode(lost))

    def _hear_stream(self, frame: StreamStart | StreamDelta | StreamAbort) -> None:
        try:
            self._streams.hear(frame)
        except Unreadable as failure:
            self.unreadable[failure.reason] += 1
        self.transcript.notify()

    def _hear_typing(self, frame: TypingStart | TypingStop) -> None:
        if isinstance(frame, TypingStart):
            self.typing.add(frame.conversation_id)
            self.counts["typing"] += 1
        else:
            self.typing.discard(frame.conversation_id)
        self.transcript.notify()


def _event(kind: str, **more: str) -> dict[str, object]:
    return {"type": "system", "event": {"kind": kind, **more}}


async def make_person(url: str, name: str) -> Person:
    """A new person with fresh keys, registered but not connected."""
    async with RelayApi(url) as api:
        account = await api.add_person(name)
    made = Person(url, name, account, IdentityKeys.generate(os.urandom))
    await made.register()
    return made


@asynccontextmanager
async def connected(*people: Person) -> AsyncIterator[None]:
    """Their connections for as long as the body runs, which begins when each is connected."""
    try:
        async with background() as nursery:
            for one in people:
                nursery.start_soon(one.run)
            for one in people:
                await one.transcript.until(_is_connected(one))
            yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            for one in people:
                await one.close()


def _is_connected(person: Person) -> Callable[[], bool]:
    return lambda: person.connected
