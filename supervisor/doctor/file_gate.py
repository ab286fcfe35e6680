"""Checks the way to the file gate as a worker takes it: whether it is reached, its TLS, and whether it knows our key and our clock.

It asks the gate's readiness, with a proof, which is no call: nothing of it is counted or logged. A gate that `up` has not started yet is not asked,
since that would start it.
"""

import secrets
import ssl
import time
from collections.abc import Iterator

import httpx2
import msgspec
import trio

from bus.files.calls import PROOF_HEADER
from bus.files.proofs import Call, FilesKey
from bus.files.refused_tls import GATE_WITH_TLS, refused_tls
from bus.settings.files_place import FILES_URL, FilesPlace, files_place_of
from bus.settings.reader import SettingsReader
from bus.settings.url_parts import netloc
from host.unreadable import UNREADABLE
from supervisor.doctor.case import Case
from supervisor.doctor.causes import cause_of
from supervisor.doctor.findings import Finding, bad, ok, unknown, warn
from supervisor.doctor.relay import certificate_of
from supervisor.files.key_file import FILES_KEY_FILE, read_files_key
from supervisor.relay.bodies import BodyRefused, whole
from supervisor.settings import parsers
from supervisor.settings.table import FILES_KEY

SUBJECT = "file gate"
RUNBOOK = "docs/runbooks/files.md"
READY = "/readyz"
MOST_BYTES = 64 * 1024
THERE = f"on its host: hashee-agent healthcheck --files; its log; {RUNBOOK}"
OWN = f"journalctl -u hashee-agent | grep files:; {RUNBOOK}"
NAMED_BY = f"HASHEE_FILES_URL must name one (hashee-agent files; its own HASHEE_FILES_LISTEN); {RUNBOOK}"
RENEW = "a new HASHEE_FILES_CERT at the gate, and start it again: systemctl restart hashee-agent-files"
SAME_KEY = f"hashee-agent keys files shows it: set it as HASHEE_FILES_KEY of the gate, and start that again; {RUNBOOK}"
CLOCKS = "set the clock of this host, or of the gate's: timedatectl set-ntp true; chronyc makestep"


class _Check(msgspec.Struct):
    name: str
    ok: bool
    detail: str = ""


class _Said(msgspec.Struct):
    """What the gate says of its readiness; `error` of a call that is none to it."""

    checks: list[_Check] = []
    error: dict[str, object] = {}


def look_at_file_gate(case: Case) -> Iterator[Finding]:
    """Yields the findings on the gate that workers of this host use."""
    if not case.has_files:
        yield ok(SUBJECT, "way", "no files here: HASHEE_FILES_URL=none")
        return
    own = case.own_gate
    if own is not None and own.get("deaths"):
        yield warn(SUBJECT, "deaths", f"it died {own['deaths']} times since the keeper's start", OWN)
    place = case.files
    if place is None and own is not None:
        if not own["pid"]:
            yield ok(SUBJECT, "way", f"{own['url']}: none runs; it is started when the first file comes or goes")
            return
        place = files_place_of(SettingsReader({FILES_URL.name: own["url"]}))
    if place is None:
        said = case.status_problem or "HASHEE_FILES_URL names none here, and no keeper here has one"
        yield unknown(
            SUBJECT,
            "way",
            said,
            "give this command the HASHEE_FILES_URL of the workers, or run it beside hashee-agent up",
        )
        return
    yield from trio.run(_ask, case, place, _key_of(case))


def _key_of(case: Case) -> FilesKey | None:
    """Returns the key of the gate's callers: as it is given, else as a supervisor of this host has written it."""
    given = SettingsReader(case.environ).optional(FILES_KEY, parsers.secret_bytes)
    raw = given.reveal() if given is not None else None
    if raw is None and case.state_dir is not None:
        raw = read_files_key(case.state_dir / FILES_KEY_FILE)
    return None if raw is None else FilesKey(raw)


async def _ask(case: Case, place: FilesPlace, key: FilesKey | None) -> list[Finding]:
    began_at = time.time()
    path = None if place.socket_path is None else str(place.socket_path)
    transport = httpx2.AsyncHTTPTransport(uds=path, verify=place.tls or False)
    scheme = "http" if place.tls is None else "https"
    base_url = f"{scheme}://{'files' if path else netloc(place.host, place.port)}"
    try:
        with trio.fail_after(case.answer_seconds):
            async with (
                httpx2.AsyncClient(transport=transport, base_url=base_url, trust_env=False) as client,
                client.stream("GET", READY, headers=_proof(key)) as answer,
            ):
                body = await whole(answer, MOST_BYTES)
                spent = f"{place.shown}: answered in {(time.time() - began_at) * 1000:.0f} ms"
                return list(_read(answer, body, spent, place, key))
    except BodyRefused:
        return [_no_gate(place)]
    except trio.TooSlowError:
        return [bad(SUBJECT, "way", f"{place.shown}: no answer within {case.answer_seconds:.0f} s", THERE)]
    except (httpx2.HTTPError, OSError) as error:
        return [_unreached(place, error)]


def _proof(key: FilesKey | None) -> dict[str, str]:
    if key is None:
        return {}
    made = key.prove(Call("GET", READY, 0), time_ms=time.time_ns() // 1_000_000, nonce=secrets.token_hex(16))
    return {PROOF_HEADER: made}


def _read(
    answer: httpx2.Response, body: bytes, spent: str, place: FilesPlace, key: FilesKey | None
) -> Iterator[Finding]:
    try:
        said = msgspec.json.decode(body, type=_Said)
    except UNREADABLE:
        yield _no_gate(place)
        return
    if GATE_WITH_TLS.said in str(said.error.get("message", "")):
        yield bad(SUBJECT, "TLS", f"{place.shown}: {GATE_WITH_TLS.said}", GATE_WITH_TLS.remedy)
        return
    checks = {check.name: check for check in said.checks}
    if "files" not in checks:
        yield _no_gate(place)
        return
    yield ok(SUBJECT, "way", spent)
    if place.tls is not None:
        yield from certificate_of(SUBJECT, answer, RENEW)
    yield from _known(checks, has_key=key is not None)


def _no_gate(place: FilesPlace) -> Finding:
    return bad(SUBJECT, "way", f"{place.shown}: what answers there is no file gate", NAMED_BY)


def _known(checks: dict[str, _Check], *, has_key: bool) -> Iterator[Finding]:
    """Yields whether the gate knows this agent's workers, and whether its clock agrees with ours."""
    if not checks["files"].ok:
        remedy = f"its HASHEE_STATE_DIR must be the supervisor's, or set HASHEE_FILES_KEY there; {RUNBOOK}"
        yield bad(SUBJECT, "key", checks["files"].detail, remedy)
        return
    proof = checks.get("proof")
    if proof is None:
        why = "an older gate, which does not say" if has_key else "no supervisor of this host has written the key"
        yield unknown(SUBJECT, "key", why, "hashee-agent keys files, where the supervisor is, shows which it must be")
        return
    reason, _, message = proof.detail.partition(": ")
    if proof.ok:
        yield ok(SUBJECT, "key", "it knows our key")
        yield ok("clock", SUBJECT, "ours and the file gate's agree within a minute, which is what it takes")
    elif reason == "stale_proof":
        yield ok(SUBJECT, "key", "it knows our key")
        yield bad("clock", SUBJECT, f"it refuses our calls: {message}", CLOCKS)
    else:
        yield bad(SUBJECT, "key", f"it refuses our calls ({reason}): {message}", SAME_KEY)


def _unreached(place: FilesPlace, error: BaseException) -> Finding:
    refused = refused_tls(cause_of(error, ssl.SSLError))
    if refused is not None:
        return bad(SUBJECT, "TLS", f"{place.shown}: {refused.said}", refused.remedy)
    problem = cause_of(error, OSError)
    why = problem.strerror if problem is not None and problem.strerror else type(error).__name__
    return bad(SUBJECT, "way", f"{place.shown}: not reached: {why}", OWN if place.socket_path else THERE)
