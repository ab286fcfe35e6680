"""The relay's REST side, as the agent uses it (PROTOCOL §3). Knows addresses and shapes, keeps no state, repeats nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx2
import msgspec

from supervisor.frames import FromRelay, Relation, UnknownFrame, frame_from_polled, relations_from_json
from supervisor.secrets import Secret

TIMEOUT_SECONDS = 15.0
POLL_LIMIT = 100

Json = dict[str, object]


class RestFailed(Exception):
    """A call did not succeed. `status` 0: no answer at all; `retry_after_seconds` with 429."""

    def __init__(self, call: str, status: int, code: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(f"{call}: {f'HTTP {status} {code}'.strip() if status else code}")
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_final(self) -> bool:
        """Whether waiting does not help (4xx but 408 and 429)."""
        return 400 <= self.status < 500 and self.status not in (408, 429)


class Page(msgspec.Struct, frozen=True):
    """One polled page, oldest first. `last_id`: the cursor after it, None for an empty page."""

    frames: list[FromRelay | UnknownFrame]
    last_id: str | None


class Rest:
    """Calls of one agent; made by `open_rest`."""

    def __init__(self, client: httpx2.AsyncClient, agent_id: str) -> None:
        self._client = client
        self._agent_id = agent_id

    async def register_keys(self, body: Json) -> int:
        """Publish our prekeys; how many one-time prekeys the relay holds afterwards."""
        data = await self._call("POST", f"/agents/{self._agent_id}/keys/register", body=body)
        left = data.get("one_time_prekeys_left") if isinstance(data, dict) else None
        return left if isinstance(left, int) else 0

    async def devices(self, user_id: str) -> list[Json]:
        """A person's devices with their bundles, as they stand in the answer."""
        data = await self._call("GET", f"/keys/users/{user_id}/devices")
        return [cast(Json, item) for item in data if isinstance(item, dict)] if isinstance(data, list) else []

    async def relations(self) -> tuple[Relation, ...]:
        """Everybody who may, or might once, talk to this agent."""
        return relations_from_json(await self._call("GET", f"/agents/{self._agent_id}/relations"))

    async def poll(self, cursor: str | None) -> Page:
        """The messages after `cursor`."""
        parameters: dict[str, str | int] = {"limit": POLL_LIMIT}
        if cursor is not None:
            parameters["cursor"] = cursor
        data = await self._call("GET", f"/agents/{self._agent_id}/messages/poll", parameters=parameters)
        entries = data if isinstance(data, list) else []
        last = entries[-1].get("message_id") if entries and isinstance(entries[-1], dict) else None
        return Page([frame_from_polled(entry) for entry in entries], last if isinstance(last, str) else None)

    async def _call(
        self, method: str, path: str, *, body: Json | None = None, parameters: dict[str, str | int] | None = None
    ) -> object:
        call = f"{method} {path}"
        try:
            answer = await self._client.request(method, path, json=body, params=parameters)
        except httpx2.HTTPError as error:
            raise RestFailed(call, 0, type(error).__name__) from None
        try:
            content: object = answer.json()
        except ValueError:
            raise RestFailed(call, answer.status_code, "not JSON") from None
        if not isinstance(content, dict):
            raise RestFailed(call, answer.status_code, "not an object")
        if answer.is_success and "data" in content:
            return content["data"]
        error_part = content.get("error")
        code = error_part.get("code", "") if isinstance(error_part, dict) else ""
        retry_after = content.get("retry_after", 0)
        if isinstance(error_part, dict):
            retry_after = error_part.get("retry_after", retry_after)
        raise RestFailed(
            call,
            answer.status_code,
            str(code)[:64],
            float(retry_after) if isinstance(retry_after, int | float) else 0.0,
        )


@asynccontextmanager
async def open_rest(base_url: str, agent_id: str, token: Secret[str]) -> AsyncIterator[Rest]:
    """A client with its connections, closed with the block."""
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        yield Rest(client, agent_id)
