"""The REST manners of PROTOCOL §1 in one place: `data` and `error` bodies, bearer tokens, typed request bodies, faults.

The handlers in `rest_*.py` raise `Refused` and return JSON values; none of them builds a response by hand.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.relay.faults import FaultKind
from sandbox.relay.hub import Hub
from sandbox.relay.records import Agent, Person
from sandbox.relay.state import Refused
from supervisor.relay.frames import FromRelay

CLIENT_GONE = 499

Page = tuple[list[FromRelay], str | None]
"""A list and its `next_cursor`."""

Handler = Callable[[Request], Awaitable[object]]
Endpoint = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=msgspec.Struct)


class Rest:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def route(self, method: str, path: str, handler: Handler, *, faulty: bool = True) -> Route:
        """A route that counts itself and, where `faulty`, lets agents suffer from armed REST faults."""
        return Route(path, self._endpoint(f"rest.{method} {path}", handler, faulty=faulty), methods=[method])

    def _endpoint(self, name: str, handler: Handler, *, faulty: bool) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            self.hub.stats.count(name)
            try:
                if faulty:
                    self._suffer(request)
                return _answer(await handler(request))
            except Refused as refused:
                self.hub.stats.count(f"rest_status.{refused.status}")
                return _refusal(refused)
            except ClientDisconnect:  # killed while it asked, say: nobody is there to be answered
                self.hub.stats.count("rest_gone")
                return Response(status_code=CLIENT_GONE)

        return endpoint

    def _suffer(self, request: Request) -> None:
        agent = self.hub.state.agent_by_token(_bearer(request))
        if agent is None:
            return
        if fault := self.hub.fault(FaultKind.REST_429, agent.agent_id):
            raise Refused(429, "RATE_LIMITED", "too many requests", fault.retry_after)
        if self.hub.fault(FaultKind.REST_500, agent.agent_id):
            raise Refused(500, "INTERNAL", "internal error")

    def agent_of(self, request: Request) -> Agent:
        """The agent whose token this is, which must be the one in the path. Raises `Refused`."""
        agent = self.hub.state.agent_by_token(_bearer(request))
        if agent is None:
            raise Refused(401, "INVALID_TOKEN", "the token is not valid")
        if request.path_params.get("agent_id", agent.agent_id) != agent.agent_id:
            raise Refused(403, "FORBIDDEN", "the token is another agent's")
        return agent

    def person_of(self, request: Request) -> Person:
        person = self.hub.state.person_by_token(_bearer(request))
        if person is None:
            raise Refused(401, "INVALID_TOKEN", "the token is not valid")
        return person

    def owner_of(self, request: Request) -> str:
        """The id of whoever asks, agent or person."""
        agent = self.hub.state.agent_by_token(_bearer(request))
        return agent.agent_id if agent else self.person_of(request).user_id


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The JSON body as `kind`. Raises `Refused`."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise Refused(400, "INVALID_REQUEST", str(error)) from None


def integer(request: Request, name: str, default: int, highest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise Refused(400, "INVALID_REQUEST", f"{name} must be a number")
    return min(int(text), highest)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _answer(value: object) -> Response:
    if isinstance(value, Response):
        return value
    body = {"data": value[0], "next_cursor": value[1]} if isinstance(value, tuple) else {"data": value}
    return Response(msgspec.json.encode(body), media_type="application/json")


def _refusal(refused: Refused) -> Response:
    error: dict[str, object] = {
        "code": refused.code,
        "message": refused.message,
        "i18n_key": f"error.{refused.code.lower()}",
        "params": {},
    }
    headers = {}
    if refused.retry_after is not None:
        error["retry_after"] = refused.retry_after
        headers["retry-after"] = str(max(1, round(refused.retry_after)))
    body = msgspec.json.encode({"error": error})
    return Response(body, refused.status, headers, media_type="application/json")
