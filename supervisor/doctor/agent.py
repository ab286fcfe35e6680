"""Checks what the running agent reports: readiness, connection and slot, prekeys, workers, what waits for a decision."""

import time
from collections.abc import Iterator

from crypto.prekeys import SIGNED_PREKEY_ROTATION_MS
from supervisor.doctor.case import Case, Json
from supervisor.doctor.findings import Finding, Verdict, at_least, at_most, bad, judged, ok, unknown, warn
from supervisor.peers.prekeys import ONE_TIME_REFILL_UNDER

SUBJECT = "agent"
DAY_MS = 86_400_000
LATE_DAYS = 1.0  # the supervisor checks every hour whether a new prekey is due
RUNBOOKS = {
    "relay": "docs/runbooks/no-connection.md",
    "prekeys": "docs/runbooks/prekeys-low.md",
    "identity": "docs/runbooks/twin.md",
    "catch-up": "docs/runbooks/not-caught-up.md",
    "redis": "docs/runbooks/redis.md",
    "bus": "docs/runbooks/redis.md",
    "intake": "docs/runbooks/much-comes-in.md",
    "workers": "docs/runbooks/crash-loop.md, docs/runbooks/deaf.md",
}
NOT_READY = "docs/runbooks/not-ready.md"


def look_at_agent(case: Case) -> Iterator[Finding]:
    """Yields the findings on the agent's status, or that no agent answers."""
    if case.status is None:
        yield unknown(SUBJECT, "running", case.status_problem or "no agent was asked", "hashee-agent up")
        return
    keeper, status = case.status.get("keeper"), case.supervisor
    if keeper and keeper.get("upgrade"):
        yield ok(SUBJECT, "upgrade", f"the last one: {keeper['upgrade']}")
    if not status:
        said = case.status.get("problem") or "the keeper has no supervisor that answers"
        yield bad(SUBJECT, "running", str(said), "hashee-agent status; docs/runbooks/no-supervisor.md")
        return
    yield ok(SUBJECT, "running", f"supervisor {status['pid']}, for {status['uptime_seconds'] / 60:.0f} minutes")
    for check in status["checks"]:
        remedy = f"hashee-agent status; {RUNBOOKS.get(check['name'], NOT_READY)}"
        verdict = Verdict.OK if check["ok"] else Verdict.BAD
        yield judged(SUBJECT, f"check {check['name']}", verdict, check["detail"], remedy)
    yield _connection(status["connection"])
    yield _one_time_prekeys(status["prekeys_left"])
    yield from _signed_prekey(status.get("signed_prekey_since_ms"))
    yield from _new_identity(status.get("identity_since_ms"))
    yield from _witness(status.get("has_witness"), status.get("witness_noted_ms"))
    yield from _pool(status["pool"])
    yield from _decisions(status["work"])


def _connection(connection: Json) -> Finding:
    if connection["standby"]:
        return ok(SUBJECT, "slot", f"a warm standby: {connection['detail']}")
    if connection["refusal"]:
        said = f"the relay refuses: {connection['refusal']}"
        return bad(SUBJECT, "slot", said, "hashee-agent status; docs/runbooks/no-connection.md")
    return ok(SUBJECT, "slot", f"slot {connection['slot']}, {connection['state']}, {connection['detail']}")


def _one_time_prekeys(left: int | None) -> Finding:
    if left is None:
        return unknown(SUBJECT, "one-time prekeys", "not published yet", "hashee-agent status")
    verdict = at_least(left, warns=ONE_TIME_REFILL_UNDER, spoils=0)
    return judged(SUBJECT, "one-time prekeys", verdict, f"{left} left at the relay", "docs/runbooks/prekeys-low.md")


def _signed_prekey(since_ms: int | None) -> Iterator[Finding]:
    """Judges the age of the signed prekey; nothing for an older release, which does not report it."""
    if since_ms is None:
        return
    days = (time.time() * 1000 - since_ms) / DAY_MS
    period = SIGNED_PREKEY_ROTATION_MS / DAY_MS
    verdict = at_most(days, warns=period + LATE_DAYS, spoils=2 * period)
    said = f"made {days:.1f} days ago; a new one comes every {period:.0f} days"
    remedy = "hashee-agent keys rotate-prekeys; docs/runbooks/prekeys-low.md"
    yield judged(SUBJECT, "signed prekey", verdict, said, remedy)


def _new_identity(since_ms: int | None) -> Iterator[Finding]:
    """Warns while the agent uses other identity keys than before, which may be a mistake of its settings; nothing in the other case."""
    if since_ms is not None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(since_ms / 1000))
        said = f"other keys than before since {since}: people see that they have changed, and are asked to accept them"
        yield warn(SUBJECT, "identity", said, "if that was not meant, start with the former keys; else docs/keys.md")


def _witness(is_there: bool | None, noted_ms: int | None) -> Iterator[Finding]:
    """Judges the witness; nothing if none is needed, or for an older release."""
    if is_there is None:
        return
    said = "a witness in memory knows what Redis was seen to hold"
    if is_there:
        ago = "" if noted_ms is None else f", last written to {max(0.0, time.time() - noted_ms / 1000):.0f} s ago"
        yield ok(SUBJECT, "witness", f"{said}{ago}")
        return
    remedy = "a tmpfs that stays: RuntimeDirectory= with RuntimeDirectoryPreserve=, or /dev/shm (docs/security.md)"
    yield warn(SUBJECT, "witness", "no place in memory for one: each start of Redis begins all sessions anew", remedy)


def _pool(pool: Json) -> Iterator[Finding]:
    if loop := pool.get("crash_loop"):
        said = f"workers die again and again: {loop['deaths']} deaths in a minute"
        yield bad(SUBJECT, "crash loop", said, "hashee-agent status; docs/runbooks/crash-loop.md")
    if pool.get("reload_problem"):
        said = "the last reload failed, the old workers stay"
        yield warn(SUBJECT, "reload", said, "hashee-agent status says why; then: hashee-agent reload")


def _decisions(work: Json | None) -> Iterator[Finding]:
    if work is None:
        yield unknown(SUBJECT, "what waits", "unknown while Redis does not answer", "docs/runbooks/redis.md")
        return
    for field, name, helps in (
        ("dead_letters", "dead letters", "hashee-agent dead list"),
        ("quarantined", "quarantine", "hashee-agent quarantine list"),
    ):
        verdict = Verdict.WARN if work[field] else Verdict.OK
        yield judged(SUBJECT, name, verdict, f"{work[field]} wait for a decision", helps)
