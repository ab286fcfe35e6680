"""Checks the way to the relay that the supervisor takes: proxy, TLS, certificate, token; and our clock against the relay's.

It makes one request: the list of relations, which the supervisor also reads after every connection, and which changes nothing. Only the
head of the answer is read.
"""

import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx2
import trio

from supervisor.doctor.case import Case
from supervisor.doctor.causes import cause_of
from supervisor.doctor.clock import skew
from supervisor.doctor.findings import Finding, at_least, bad, judged, ok, unknown, warn
from supervisor.relay.rest import open_client
from supervisor.settings.secrets import Secret
from supervisor.settings.way import Way

SUBJECT = "relay"
DATE_SECONDS = 1.0  # the header has whole seconds
DAY_SECONDS = 86_400.0
RENEW_DAYS = 14.0  # a certificate that is renewed automatically is renewed long before
LAST_DAYS = 3.0
TRUST = "give its issuer's certificate: SSL_CERT_FILE=/path/to/ca.pem (docs/settings.md)"
NETWORK = "look at network, DNS and proxy (HASHEE_PROXY, docs/settings.md); docs/runbooks/no-connection.md"
ROTATE = "set the present one (HASHEE_AGENT_TOKEN) and restart; docs/runbooks/no-connection.md"
CERTIFICATE_REMEDIES = {
    9: "our clock is behind, or the relay's certificate begins later: timedatectl",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "the relay's operator (or the proxy's) must renew it; our clock may be ahead: timedatectl",  # …_CERT_HAS_EXPIRED
    62: "HASHEE_BASE_URL must have a name that the certificate has",  # X509_V_ERR_HOSTNAME_MISMATCH
    64: "HASHEE_BASE_URL must have an address that the certificate has",  # X509_V_ERR_IP_ADDRESS_MISMATCH
}


def look_at_relay(case: Case) -> Iterator[Finding]:
    """Yields the findings on the way, the certificate, the token and the clock."""
    if case.base_url is None or case.way is None:
        yield unknown(SUBJECT, "way", "the settings do not say how it is reached", "hashee-agent check-settings")
        return
    yield from trio.run(_ask, case, case.base_url, case.way)


async def _ask(case: Case, base_url: str, way: Way) -> list[Finding]:
    agent_id, token = case.agent_id or "", case.token
    where = f"{base_url} {way.shown}"
    began_at = time.time()
    try:
        with trio.fail_after(case.answer_seconds):
            async with (
                open_client(base_url, token, way) as client,
                client.stream("GET", f"/agents/{agent_id}/relations") as answer,
            ):
                seconds = time.time() - began_at
                return [
                    ok(SUBJECT, "way", f"{where}: answered in {seconds * 1000:.0f} ms"),
                    *certificate_of(SUBJECT, answer, "whoever runs the relay must renew it"),
                    _token(answer.status_code, token),
                    _clock(answer.headers.get("Date"), began_at, seconds),
                ]
    except trio.TooSlowError:
        return [bad(SUBJECT, "way", f"{where}: no answer within {case.answer_seconds:.0f} s", NETWORK)]
    except httpx2.ProxyError as error:
        status = str(error)[:3]
        said = f" with {status}" if status.isdecimal() else ""
        return [
            bad(SUBJECT, "way", f"{where}: the proxy refuses{said}", "its user and password, and what it lets through")
        ]
    except (httpx2.HTTPError, OSError) as error:
        return [_unreached(where, error)]


def _unreached(where: str, error: BaseException) -> Finding:
    refusal = cause_of(error, ssl.SSLCertVerificationError)
    if refusal is not None:
        said = f"{where}: the certificate is refused: {refusal.verify_message}"
        return bad(SUBJECT, "certificate", said, CERTIFICATE_REMEDIES.get(refusal.verify_code, TRUST))
    problem = cause_of(error, OSError)
    why = problem.strerror if problem is not None and problem.strerror else type(error).__name__
    return bad(SUBJECT, "way", f"{where}: not reached: {why}", NETWORK)


def certificate_of(subject: str, answer: httpx2.Response, remedy: str) -> Iterator[Finding]:
    """Yields the finding on how long the certificate of whoever answered is still good, with what helps where it is not for long."""
    stream = answer.extensions.get("network_stream")
    secure = None if stream is None else stream.get_extra_info("ssl_object")
    if secure is None:
        yield ok(subject, "certificate", "none: without TLS")
        return
    shown = secure.getpeercert()
    days = (ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()) / DAY_SECONDS
    names = ", ".join(name for _, name in shown.get("subjectAltName", ())[:3])
    verdict = at_least(days, warns=RENEW_DAYS, spoils=LAST_DAYS)
    said = f"{secure.version()}, of {names}: ends in {days:.1f} days"
    yield judged(subject, "certificate", verdict, said, remedy)


def _token(status: int, token: Secret[str] | None) -> Finding:
    if token is None:
        return unknown(SUBJECT, "token", "the settings have none that can be read", "hashee-agent check-settings")
    if 200 <= status < 300:
        return ok(SUBJECT, "token", "accepted")
    if status in (401, 403, 404):
        return bad(SUBJECT, "token", f"the relay does not accept token and agent id: HTTP {status}", ROTATE)
    if status == 429:
        return warn(SUBJECT, "token", "the relay asks us to slow down: HTTP 429", "hashee-agent status; wait a minute")
    return unknown(SUBJECT, "token", f"the relay answers HTTP {status}", NETWORK)


def _clock(date: str | None, began_at: float, seconds: float) -> Finding:
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return unknown("clock", "relay", "its answer has no time")
    # The date was written between request and answer, and is cut to a whole second.
    return skew("relay", began_at + seconds / 2 - (theirs + DATE_SECONDS / 2), (seconds + DATE_SECONDS) / 2)
