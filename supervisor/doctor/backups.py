"""Checks the age of the last backup, by the note in Redis (bus/steps/last_backup.py), against the age that is allowed."""

from collections.abc import Iterator

import trio

from bus.records.keys import Keys
from bus.steps.last_backup import MOST_RECIPIENTS, LastBackup, last_backup
from bus.transport.client import open_redis
from bus.transport.clock import redis_ms
from bus.transport.lua import Scripts
from bus.transport.wire import RedisFailed
from host.budgets import MIB
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, at_most, judged, ok, unknown, warn
from supervisor.doctor.redis import redis_url_of

SUBJECT = "backup"
HOUR_MS = 3_600_000
SPOILS_AFTER = 3  # times the allowed age: then backups have failed again and again
RUNBOOK = "docs/runbooks/backup.md"
MAKE_ONE = f"hashee-agent backup FILE; systemctl list-timers hashee-agent-backup; {RUNBOOK}"


def look_at_backups(case: Case) -> Iterator[Finding]:
    """Yields the finding on its age, by Redis' clock, which dated it."""
    url = redis_url_of(case)
    if url is None or case.agent_id is None:
        yield unknown(SUBJECT, "age", "the settings do not say where it would be noted", "hashee-agent check-settings")
        return
    try:
        backup, now_ms = trio.run(_noted, url, Keys(case.agent_id), case.answer_seconds)
    except (RedisFailed, trio.TooSlowError):
        yield unknown(SUBJECT, "age", "unknown without Redis, where it is noted", "docs/runbooks/redis.md")
        return
    yield _age(backup, now_ms, case.backup_max_age_seconds / 3600)
    if backup is not None and backup.sealed_to is not None and case.backup_recipients:
        yield _recipients(backup.sealed_to, case.backup_recipients)


async def _noted(url: str, keys: Keys, seconds: float) -> tuple[LastBackup | None, int]:
    with trio.fail_after(seconds):
        async with open_redis(url, Scripts({})) as client:
            return await last_backup(client, keys), await redis_ms(client)


def _age(backup: LastBackup | None, now_ms: int, most_hours: float) -> Finding:
    allowed = f"it may be {most_hours:g} h old (HASHEE_BACKUP_MAX_AGE_HOURS)"
    if backup is None:
        said = "none of this store is known"
        if most_hours:
            return warn(SUBJECT, "age", f"{said}, and {allowed}", MAKE_ONE)
        return ok(SUBJECT, "age", f"{said}, and none is expected (HASHEE_BACKUP_MAX_AGE_HOURS, docs/disaster.md)")
    hours = (now_ms - backup.made_ms) / HOUR_MS
    is_ahead = backup.is_dated_ahead(now_ms)
    when = (
        f"dated {-hours:.1f} h ahead of Redis' clock, so its age is not known"
        if is_ahead
        else f"made {hours:.1f} h ago"
    )
    said = f"{when}, {backup.size_bytes / MIB:.1f} MiB, {sealed(backup.sealed_to)}: {backup.place}"
    if not most_hours:
        return ok(SUBJECT, "age", said)
    if is_ahead:
        return warn(SUBJECT, "age", f"{said}; {allowed}", f"put Redis' clock right if it is wrong now; then {MAKE_ONE}")
    verdict = at_most(hours, warns=most_hours, spoils=SPOILS_AFTER * most_hours)
    return judged(SUBJECT, "age", verdict, f"{said}; {allowed}", MAKE_ONE)


def _recipients(sealed_to: tuple[str, ...], wanted: tuple[str, ...]) -> Finding:
    """Judges whether the last backup opens with the keys that the settings name now: another may be lost, or known to others."""
    if set(sealed_to) == set(wanted[:MOST_RECIPIENTS]):
        return ok(SUBJECT, "recipients", "the last one is sealed to those of HASHEE_BACKUP_RECIPIENTS")
    said = "the last one is not sealed to the keys of HASHEE_BACKUP_RECIPIENTS"
    return warn(
        SUBJECT, "recipients", said, f"where the timer or CronJob reads its settings, name the same; then {MAKE_ONE}"
    )


def sealed(recipients: tuple[str, ...] | None) -> str:
    """Returns in words what a backup is sealed to; age public keys are too long for a line."""
    if recipients is None:
        return "the one that was restored"
    if not recipients:
        return "under a passphrase"
    return f"sealed to {len(recipients)} age key{'s' if len(recipients) > 1 else ''}"
