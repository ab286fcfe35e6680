"""The way to the relay, each fault on a real socket: clock, token, certificate, proxy, nobody there, nobody answering."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding
from supervisor.doctor.relay import look_at_relay
from tests.supervisor.doctor.builders import case_of, named
from tests.supervisor.relay.test_websocket_tls import certificate, tls_front
from tests.supervisor.settings.environment import AGENT_ID, TOKEN
from tests.supervisor.web_server import Asked, response, web_server

LONG_SECONDS = 60.0


async def found(case: Case) -> dict[str, Finding]:
    """It runs in a thread of its own, as in the command."""
    return named(await trio.to_thread.run_sync(list, look_at_relay(case)))


async def answer(
    asked: Asked,
    stream: trio.SocketStream,
    *,
    ahead: timedelta | None = timedelta(),
    status: int = 200,
    seen: Callable[[Asked], object] = lambda _: None,
) -> None:
    """As the relay would, by a clock that is ahead of ours."""
    seen(asked)
    date = "" if ahead is None else f"Date: {format_datetime(datetime.now(UTC) + ahead, usegmt=True)}"
    await stream.send_all(response(b'{"data":[]}', status=status, headers=date))


async def test_a_relay_that_answers_is_well_and_asked_once_for_what_changes_nothing(tmp_path: Path) -> None:
    asked = list[Asked]()
    async with web_server(partial(answer, seen=asked.append)) as url:
        findings = await found(case_of(tmp_path, HASHEE_BASE_URL=url))
    assert {name: finding.verdict for name, finding in findings.items()} == dict.fromkeys(
        ("relay: way", "relay: certificate", "relay: token", "clock: relay"), "ok"
    )
    assert [one.path for one in asked] == [f"/agents/{AGENT_ID}/relations"]
    assert asked[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("ahead_seconds", "verdict", "said"), [(0, "ok", ""), (-30, "warn", "ahead"), (600, "bad", "behind")]
)
async def test_a_clock_that_is_off_is_said_with_its_direction(
    tmp_path: Path, ahead_seconds: int, verdict: str, said: str
) -> None:
    async with web_server(partial(answer, ahead=timedelta(seconds=ahead_seconds))) as url:
        finding = (await found(case_of(tmp_path, HASHEE_BASE_URL=url)))["clock: relay"]
    assert finding.verdict == verdict
    assert said in finding.said


async def test_an_answer_without_a_time_leaves_the_clock_unknown(tmp_path: Path) -> None:
    async with web_server(partial(answer, ahead=None)) as url:
        assert (await found(case_of(tmp_path, HASHEE_BASE_URL=url)))["clock: relay"].verdict == "unknown"


@pytest.mark.parametrize(("status", "verdict"), [(401, "bad"), (403, "bad"), (429, "warn"), (503, "unknown")])
async def test_what_the_relay_says_to_our_token(tmp_path: Path, status: int, verdict: str) -> None:
    async with web_server(partial(answer, status=status)) as url:
        finding = (await found(case_of(tmp_path, HASHEE_BASE_URL=url)))["relay: token"]
    assert finding.verdict == verdict
    assert str(status) in finding.said


async def test_without_a_token_all_else_is_asked(tmp_path: Path) -> None:
    async with web_server(partial(answer, status=401)) as url:
        findings = await found(case_of(tmp_path, HASHEE_BASE_URL=url, HASHEE_AGENT_TOKEN=""))
    assert findings["relay: token"].verdict == "unknown"
    assert findings["relay: way"].verdict == "ok"


@asynccontextmanager
async def secure(folder: Path, ends_in: timedelta) -> AsyncIterator[tuple[str, Path]]:
    """A relay with TLS: its address, and the certificate to trust."""
    async with (
        web_server(answer) as plain,
        tls_front(folder, urlsplit(plain).port or 0, ends_in) as (port, cert),
    ):
        yield f"https://127.0.0.1:{port}", cert


@pytest.mark.parametrize(("days", "verdict"), [(60, "ok"), (10, "warn"), (1, "bad")])
async def test_a_certificate_that_ends_soon_is_said_in_days(tmp_path: Path, days: int, verdict: str) -> None:
    async with secure(tmp_path, timedelta(days=days, hours=1)) as (url, cert):
        finding = (await found(case_of(tmp_path, HASHEE_BASE_URL=url, SSL_CERT_FILE=str(cert))))["relay: certificate"]
    assert finding.verdict == verdict
    assert f"ends in {days}.0 days" in finding.said
    assert "relay.test" in finding.said


async def test_a_certificate_that_is_refused_is_said_with_what_helps(tmp_path: Path) -> None:
    async with secure(tmp_path, -timedelta(hours=1)) as (url, cert):
        expired = (await found(case_of(tmp_path, HASHEE_BASE_URL=url, SSL_CERT_FILE=str(cert))))["relay: certificate"]
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    async with secure(tmp_path, timedelta(hours=1)) as (url, cert):
        stranger = (await found(case_of(tmp_path, HASHEE_BASE_URL=url, SSL_CERT_FILE=str(other))))["relay: certificate"]
        # The same address for whoever connects, /etc/hosts or not, and for TLS a name.
        misnamed = url.replace("127.0.0.1", "127.1")
        named_else = await found(case_of(tmp_path, HASHEE_BASE_URL=misnamed, SSL_CERT_FILE=str(cert)))
    assert "expired" in expired.said
    assert "renew" in expired.remedy
    assert "SSL_CERT_FILE" in stranger.remedy
    assert "HASHEE_BASE_URL must have a name" in named_else["relay: certificate"].remedy
    assert {expired.verdict, stranger.verdict, named_else["relay: certificate"].verdict} == {"bad"}


async def test_a_proxy_that_refuses_is_named_without_its_password(tmp_path: Path) -> None:
    async def refuse(_asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(response(b"", status=407))

    async with web_server(refuse) as proxy:
        case = case_of(
            tmp_path,
            HASHEE_BASE_URL="https://relay.test",
            HASHEE_PROXY=proxy.replace("http://", "http://user:Passw0rd@"),
            SSL_CERT_FILE=str(certificate(tmp_path)[0]),
        )
        finding = (await found(case))["relay: way"]
    assert finding.verdict == "bad"
    assert f"through the proxy {proxy} (HASHEE_PROXY): the proxy refuses with 407" in finding.said
    assert "Passw0rd" not in finding.said


async def test_nobody_there_and_nobody_answering_are_told_apart(tmp_path: Path) -> None:
    refused = (await found(case_of(tmp_path, HASHEE_BASE_URL="http://127.0.0.1:1")))["relay: way"]
    assert (refused.verdict, "refused" in refused.said) == ("bad", True)

    async def hang(_asked: Asked, _stream: trio.SocketStream) -> None:
        await trio.sleep(LONG_SECONDS)

    async with web_server(hang) as url:
        silent = (await found(replace(case_of(tmp_path, HASHEE_BASE_URL=url), answer_seconds=0.05)))["relay: way"]
    assert (silent.verdict, "no answer within" in silent.said) == ("bad", True)
