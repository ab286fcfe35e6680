"""Compares the versions of this command and of all supervisors and workers, and shows that of Redis.

Two versions of ours beside each other are an upgrade that is under way, or was forgotten.
"""

import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import cast

import trio

from bus.records.keys import Keys
from bus.steps.slots import holder_of
from bus.steps.write_count import MOST_SLOTS
from bus.transport.client import RedisClient, open_redis
from bus.transport.lua import Scripts
from bus.transport.wire import RedisFailed
from bus.views.overview import Overview
from supervisor.doctor.case import Case
from supervisor.doctor.findings import Finding, Verdict, judged, ok, unknown
from supervisor.doctor.redis import redis_url_of

SUBJECT = "versions"
FORGOTTEN = "an upgrade is under way, or was forgotten: hashee-agent upgrade, and restart the workers elsewhere (docs/upgrade.md)"


def look_at_versions(case: Case) -> Iterator[Finding]:
    """Yields the findings, from what each process has written of itself into Redis."""
    ours = version("hashee-agent")
    yield ok(SUBJECT, "this command", f"hashee-agent {ours}, python {platform.python_version()}")
    if case.supervisor is not None:
        yield _compared("the running supervisor", Counter([str(case.supervisor["version"])]), ours)
    url = redis_url_of(case)
    if url is None or case.agent_id is None:
        return
    try:
        supervisors, workers, server = trio.run(_seen, url, Keys(case.agent_id), case.answer_seconds)
    except (RedisFailed, trio.TooSlowError):
        yield unknown(SUBJECT, "elsewhere", "unknown without Redis")
        return
    yield ok(SUBJECT, "Redis", server)
    yield _compared("supervisors with a slot", supervisors, ours)
    yield _compared("workers", workers, ours)


async def _seen(url: str, keys: Keys, seconds: float) -> tuple[Counter[str], Counter[str], str]:
    with trio.fail_after(seconds):
        async with open_redis(url, Scripts({})) as client:
            overview = Overview(client, keys)
            workers = Counter(worker.version for worker in await overview.workers())
            return await _supervisors(client, keys), workers, (await overview.server()).version


async def _supervisors(client: RedisClient, keys: Keys) -> Counter[str]:
    """Counts the versions of supervisors whose slot's lease has not expired; their records outlive it."""
    names = await client.command("MGET", *(keys.slot(number) for number in range(1, MOST_SLOTS + 1)))
    leased = {name.decode() for name in cast("list[bytes | None]", names) if name is not None}
    records = cast("list[bytes]", await client.command("HVALS", keys.slots))
    found = Counter[str]()
    for record in records:
        holder = holder_of(record)
        if holder is not None and holder.holder in leased:
            found[holder.version] += 1
    return found


def _compared(name: str, found: Counter[str], ours: str) -> Finding:
    others = set(found) - {ours}
    said = ", ".join(f"{count} × {one}" for one, count in sorted(found.items())) or "none"
    return judged(SUBJECT, name, Verdict.WARN if others else Verdict.OK, said, FORGOTTEN)
