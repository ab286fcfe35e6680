"""A worker's side of the file gate for tests, as plain as can be: each call proved by the agent's key, over the gate's own socket."""

import hashlib
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import msgspec
import trio

from bus.files import calls
from bus.files.proofs import Call, FilesKey
from sandbox.api import RelayApi
from supervisor.files.key_file import write_files_key
from supervisor.files.process import Timing, run_files
from supervisor.settings.files import FilesSettings
from tests.sandbox.relay import Talk, talk
from tests.waiting import waiting_for

KEY = FilesKey.of_bus_key(bytes(32))


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    body: bytes
    headers: httpx2.Headers

    def __getitem__(self, name: str) -> str:
        return str(msgspec.json.decode(self.body)[name])

    @property
    def may_try_again(self) -> bool:
        return msgspec.json.decode(self.body, type=calls.Failed).error.retry


class Caller:
    """Calls a gate; `api` and `it` are the relay behind it."""

    def __init__(self, client: httpx2.AsyncClient, it: Talk, api: RelayApi, state_dir: Path) -> None:
        self.client = client
        self.it = it
        self.api = api
        self.state_dir = state_dir
        self.key = KEY

    async def call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        bound: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Makes a call with a fresh proof, or with that in `headers`."""
        bound = hashlib.sha256(body).hexdigest() if bound is None else bound
        proof = self.proof(Call(method, target, len(body), bound))
        sent = {calls.PROOF_HEADER: proof, "content-length": str(len(body)), **(headers or {})}
        as_it_is = {"target": target.encode()}  # or the library would resolve a path with .. in it
        answer = await self.client.request(method, "/", content=body, headers=sent, extensions=as_it_is)
        failed = not answer.is_success and "json" in answer.headers.get("content-type", "")
        reason = msgspec.json.decode(answer.content, type=calls.Failed).error.reason if failed else ""
        return Answer(answer.status_code, reason, answer.content, answer.headers)

    def proof(self, call: Call) -> str:
        return self.key.prove(call, time_ms=round(time.time() * 1000), nonce=secrets.token_hex(16))

    async def announce(self, size: int, conversation_id: str = "") -> Answer:
        wanted = calls.NewUpload(conversation_id or self.it.conversation_id, size)
        return await self.call("POST", calls.UPLOADS_PATH, msgspec.json.encode(wanted))

    async def put(self, announced: Answer, body: bytes) -> Answer:
        target, ticket = calls.upload_path(announced["upload_id"]), announced["ticket"]
        return await self.call("PUT", target, body, bound=ticket, headers={calls.TICKET_HEADER: ticket})

    async def confirm(self, announced: Answer, body: bytes) -> Answer:
        return await self.confirm_hash(announced["upload_id"], hashlib.sha256(body).hexdigest())

    async def confirm_hash(self, upload_id: str, sha256: str) -> Answer:
        wanted = calls.Confirm(upload_id, sha256)
        return await self.call("POST", calls.CONFIRM_PATH, msgspec.json.encode(wanted))

    async def upload(self, body: bytes) -> str:
        """Uploads it in three calls. Returns the attachment's id."""
        announced = await self.announce(len(body))
        assert (await self.put(announced, body)).status == 200
        return (await self.confirm(announced, body))["attachment_id"]

    async def get(self, attachment_id: str, size: int, first: int = 0) -> Answer:
        asked = calls.range_from(first) if first else ""
        headers = {"range": asked} if asked else {}
        return await self.call("GET", calls.file_target(attachment_id, size), bound=asked, headers=headers)


def files_settings(it: Talk, state_dir: Path, *named: str) -> FilesSettings:
    """What a gate beside its supervisor is told; `named`: HASHEE_UPLOAD_HOSTS."""
    environ = {
        "HASHEE_AGENT_ID": it.agent.agent_id,
        "HASHEE_AGENT_TOKEN": it.agent.token,
        "HASHEE_BASE_URL": it.url,
        "HASHEE_STATE_DIR": str(state_dir),
        "HASHEE_UPLOAD_HOSTS": ",".join(named),
    }
    return FilesSettings.from_environ(environ)


def listening(path: Path) -> socket.socket:
    """A gate's socket, as a keeper makes it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    return listener


@asynccontextmanager
async def called(path: Path, it: Talk, api: RelayApi, state_dir: Path) -> AsyncIterator[Caller]:
    """The caller of a gate at this socket."""
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gate", timeout=60, trust_env=False) as client:
        with waiting_for("the gate to answer", 20):
            assert (await client.get("/healthz")).status_code == 200
        yield Caller(client, it, api, state_dir)


@asynccontextmanager
async def gate(tmp_path: Path, *named: str, timing: Timing | None = None) -> AsyncIterator[Caller]:
    """A relay, a gate on a Unix socket in front of it, and its caller. `named`: as HASHEE_UPLOAD_HOSTS, with {port} for the relay's."""
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    write_files_key(state_dir, KEY)
    async with talk(tmp_path) as (it, api), trio.open_nursery() as nursery:
        hosts = [name.format(port=httpx2.URL(it.url).port) for name in named]
        path = state_dir / "files.sock"
        nursery.start_soon(run_files, files_settings(it, state_dir, *hosts), listening(path), timing)
        async with called(path, it, api, state_dir) as caller:
            yield caller
        nursery.cancel_scope.cancel()
