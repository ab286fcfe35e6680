"""One end of the relay, whoever it is (wire §2 to §5): REST calls, a connection that comes back, sends that last until they are answered.

What comes is put aside frame by frame, so that it can be read in any order. `client.py` is a person's end, `agent.py` an agent's.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import httpx2
import trio

from tests.second_endpoint.device import Device, Frame, Place
from tests.second_endpoint.web_socket import Closed, Socket, open_socket

RESEND_SECONDS = 10.0
FIRST_WAIT_SECONDS = 1.0
LAST_WAIT_SECONDS = 30.0
AUTH_SECONDS = 5.0


class Refused(Exception):
    """The relay's no: an HTTP status and a code, or the code of a `message.error`."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.code = code


class End:
    """`door`: the path of its WebSocket; `named`: what its `auth` says besides the token."""

    def __init__(self, url: str, http: httpx2.AsyncClient, device: Device, token: str) -> None:
        self.url = url
        self.device = device
        self.token = token
        self.places: dict[str, Place] = {}
        self.frames: list[Frame] = []
        self.connections = 0
        self._http = http
        self._socket: Socket | None = None
        self._answers: dict[str, Frame] = {}
        self._news = trio.Condition()

    @property
    def door(self) -> str:
        """Where its WebSocket is."""
        raise NotImplementedError

    @property
    def named(self) -> dict[str, str]:
        """Who it is, in its first frame."""
        raise NotImplementedError

    async def publish(self, one_time: int = 100) -> None:
        """Hand its public keys to the relay, with so many new one-time prekeys."""
        raise NotImplementedError

    async def catch_up(self) -> None:
        """Take what was missed, after every authentication."""
        raise NotImplementedError

    def heard(self, frame: Frame) -> None:
        """Every frame but heartbeats and answers to sends."""
        self.frames.append(frame)

    # REST

    async def call(self, method: str, path: str, body: object = None, content: bytes | None = None) -> object:
        """What stands in `data`. Raises Refused."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = await self._http.request(method, path, json=body, content=content, headers=headers)
        if answer.headers.get("content-type") == "application/octet-stream":
            return answer.content
        said = answer.json()
        if "error" in said:
            raise Refused(answer.status_code, said["error"]["code"])
        return said["data"]

    async def fields(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """The same, where an object is answered."""
        data = await self.call(method, path, body)
        assert isinstance(data, dict)
        return data

    async def entries(self, method: str, path: str) -> list[dict[str, object]]:
        """The same, where a list is answered."""
        data = await self.call(method, path)
        assert isinstance(data, list)
        return data

    # Sending and hearing

    async def send(self, frame: Frame) -> Frame:
        """The same bytes until they are answered; the `message.ack`. Raises Refused."""
        identifier, text = str(frame["client_message_id"]), json.dumps(frame)
        self._answers.pop(identifier, None)
        while identifier not in self._answers:
            before = self.connections
            if self._socket is not None:
                with suppress(Closed):  # it goes out over the next connection
                    await self._socket.send(text)
            with trio.move_on_after(RESEND_SECONDS):
                await self.until(partial(self._is_answered_or_anew, identifier, before))
        answer = self._answers[identifier]
        if answer["type"] == "message.error":
            raise Refused(0, str(answer["code"]))
        return answer

    def _is_answered_or_anew(self, client_message_id: str, connections: int) -> bool:
        return client_message_id in self._answers or self.connections > connections

    async def post(self, frame: Frame) -> None:
        """What nobody answers; lost where there is no connection."""
        if self._socket is not None:
            with suppress(Closed):
                await self._socket.send(json.dumps(frame))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until something that came makes it true."""
        async with self._news:
            while not condition():
                await self._news.wait()

    async def next(self, *types: str) -> Frame:
        """The oldest frame of one of these types that was not taken yet."""

        def found() -> list[Frame]:
            return [frame for frame in self.frames if frame["type"] in types]

        await self.until(lambda: bool(found()))
        frame = found()[0]
        self.frames.remove(frame)
        return frame

    # The connection

    async def run(self) -> None:
        """Connected until cancelled."""
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            try:
                async with open_socket(f"ws{self.url.removeprefix('http')}{self.door}") as socket:
                    await self._authenticate(socket)
                    wait_seconds = FIRST_WAIT_SECONDS
                    await self._converse(socket)
            except (Closed, OSError):
                self._socket = None
            await trio.sleep(wait_seconds)
            wait_seconds = min(LAST_WAIT_SECONDS, 2 * wait_seconds)

    async def _authenticate(self, socket: Socket) -> None:
        await socket.send(json.dumps({"type": "auth", "token": self.token, **self.named}))
        with trio.move_on_after(AUTH_SECONDS) as patience:
            while (answer := json.loads(await socket.receive()))["type"] != "auth.ok":
                if answer["type"] == "auth.error":
                    raise Refused(0, answer["reason"])
        if patience.cancelled_caught:
            raise Refused(0, f"no answer to auth within {AUTH_SECONDS} s")

    async def _converse(self, socket: Socket) -> None:
        await self.catch_up()
        self._socket = socket
        self.connections += 1
        while True:
            async with self._news:
                self._news.notify_all()
            frame = json.loads(await socket.receive())
            if frame["type"] == "ping":
                await socket.send(json.dumps({"type": "pong"}))
            elif frame["type"] in ("message.ack", "message.error") and frame.get("client_message_id"):
                self._answers[frame["client_message_id"]] = frame
            elif frame["type"] == "system.prekeys_low":
                await self.publish()
            else:
                self.heard(frame)
