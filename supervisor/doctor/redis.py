"""Checks Redis, whoever runs it: that it is reached, fit, has room and writes to its disk, and our clock against its. Nothing is written."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import cast

import trio

from bus.records.keys import Keys
from bus.transport.client import RedisClient, open_redis
from bus.transport.lua import Scripts
from bus.transport.wire import RedisFailed, RedisUnavailable
from bus.views.shared_keys import SharedKeys
from host.budgets import MIB, SMALLEST_REDIS_BYTES
from host.embedded import layout_of
from host.redis_folder import DATA_FOLDER, LOG_FILE
from host.socket_place import RuntimeDirectoryUnsafe
from supervisor.doctor.case import Case
from supervisor.doctor.clock import skew
from supervisor.doctor.findings import Finding, Verdict, at_most, bad, judged, ok, unknown, warn
from supervisor.recovery.redis_check import RedisUnfit, check_redis, info_of, look
from supervisor.recovery.redis_memory import PAUSE_FROM, PAUSE_UNTIL

SUBJECT = "redis"
CLIENTS_UNTIL = 0.8
RUNBOOK = "docs/runbooks/redis.md"
ROOM = f"raise maxmemory (HASHEE_REDIS_MEMORY of a private one), or let go: hashee-agent dead list; {RUNBOOK}"


OF_PRIVATE = "tail {folder}/{log}; if it hangs: systemctl restart hashee-agent (hashee-agent stop, then up)"
ASK_IT = 'redis-cli -u "$HASHEE_REDIS_URL" PING from this host; then its own log'
BY_REASON: Mapping[str, str] = {
    "not_authenticated": "set its present user and password in HASHEE_REDIS_URL, then: systemctl restart hashee-agent",
    "forbidden": "give its user what docs/settings.md lists: redis-cli ACL SETUSER",
    "read_only": "point HASHEE_REDIS_URL to the master",
    "cannot_persist": "on its host: df -h; df -i; its log",
    "full": ROOM,
    "too_many_clients": "redis-cli CONFIG SET maxclients, or find who connects: redis-cli CLIENT LIST",
    "loading": "wait: it reads its file",
}
"""The remedies by the reason of a refusal (bus/transport/wire.py)."""


def redis_url_of(case: Case) -> str | None:
    """Returns the URL of the operator's or the private Redis, whether it runs or not; None if the settings do not tell."""
    if case.redis_url is not None:
        return case.redis_url.reveal()
    if not case.redis_is_private or case.state_dir is None:
        return None
    try:
        return layout_of(case.state_dir, case.runtime_dir).url
    except (OSError, RuntimeDirectoryUnsafe):
        return None


def look_at_redis(case: Case) -> Iterator[Finding]:
    """Yields the findings on everything that Redis itself can tell."""
    url = redis_url_of(case)
    if url is None:
        yield unknown(SUBJECT, "reached", "the settings do not say where it is", "hashee-agent check-settings")
        return
    yield from trio.run(_all, case, url)


async def _all(case: Case, url: str) -> list[Finding]:
    found: list[Finding] = []
    try:
        with trio.fail_after(case.answer_seconds):
            async with open_redis(url, Scripts({})) as client:
                await _ask(case, client, found)
    except trio.TooSlowError:
        found.append(bad(SUBJECT, "reached", f"no answer within {case.answer_seconds:.0f} s", _helps(case, "")))
    except RedisFailed as error:
        found.append(_unreached(case, error))
    return found


def _unreached(case: Case, error: RedisFailed) -> Finding:
    away = isinstance(error, RedisUnavailable) and error.reason == RedisUnavailable.reason
    if away and case.redis_is_private and case.status is None:
        return unknown(SUBJECT, "reached", "the private Redis does not run, since no agent does", "hashee-agent up")
    return bad(SUBJECT, "reached", f"{error.reason}: {error}", _helps(case, error.reason))


def _helps(case: Case, reason: str) -> str:
    if reason in BY_REASON:
        return f"{BY_REASON[reason]}; {RUNBOOK}"
    if case.redis_is_private and case.state_dir is not None:
        return f"{OF_PRIVATE.format(folder=case.state_dir / DATA_FOLDER, log=LOG_FILE)}; {RUNBOOK}"
    return f"{ASK_IT}; {RUNBOOK}"


async def _ask(case: Case, client: RedisClient, found: list[Finding]) -> None:
    """Asks Redis and appends to `found`, so that findings are kept if a later question fails. Raises RedisFailed."""
    if case.agent_id is not None:  # of a cluster's nodes the one that has our keys is asked for all that follows
        await client.command("EXISTS", Keys(case.agent_id).epoch)
    began_at = time.time()
    seconds, micros = cast("tuple[bytes, bytes]", await client.command("TIME"))
    trip = time.time() - began_at
    found.append(ok(SUBJECT, "reached", f"answers in {trip * 1000:.1f} ms"))
    found.append(skew("Redis", began_at + trip / 2 - (int(seconds) + int(micros) / 1e6), trip / 2))
    try:
        server = await check_redis(client, case.redis_trust)
        found.append(ok(SUBJECT, "fit", f"{server}, evicts nothing, writes all down"))
    except RedisUnfit as problem:
        found.append(bad(SUBJECT, "fit", str(problem), RUNBOOK))
    faults = (await look(client)).faults(case.redis_trust)
    found.extend(bad(SUBJECT, setting, fault, RUNBOOK) for setting, fault in faults.items() if fault)
    if case.agent_id is not None:
        damaged = await SharedKeys(client, Keys(case.agent_id)).faults()
        found.extend(bad(SUBJECT, "keys", fault, RUNBOOK) for fault in damaged)
    memory = await info_of(client, "memory")
    persistence = await info_of(client, "persistence")
    clients = await info_of(client, "clients")
    replication = await info_of(client, "replication")
    found.extend((_room(memory), _persistence(persistence), *_clients(clients)))
    if replication.get("role") == "slave":
        said = "this server is a replica: it takes no writes"
        found.append(bad(SUBJECT, "role", said, "point HASHEE_REDIS_URL to the master"))


def _room(facts: Mapping[str, str]) -> Finding:
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if not most:
        return ok(SUBJECT, "room", f"{used / MIB:.1f} MiB used, no limit of its own")
    said = f"{used / MIB:.1f} of {most / MIB:.1f} MiB used ({used / most:.0%})"
    verdict = at_most(used / most, warns=PAUSE_UNTIL, spoils=PAUSE_FROM)
    if most < SMALLEST_REDIS_BYTES and verdict is not Verdict.BAD:
        return warn(SUBJECT, "room", f"{said}; less than {SMALLEST_REDIS_BYTES // MIB} MiB is too little", ROOM)
    return judged(SUBJECT, "room", verdict, said, ROOM)


def _persistence(facts: Mapping[str, str]) -> Finding:
    if facts.get("loading") == "1":
        return warn(SUBJECT, "persistence", "it is still reading its file", "wait; hashee-agent status says when")
    failed = [name for name in ("aof_last_write_status", "aof_last_bgrewrite_status") if facts.get(name, "ok") != "ok"]
    if failed:
        said = f"{' and '.join(failed)}: err; its disk is full or broken"
        return bad(SUBJECT, "persistence", said, f"df -h; df -i; the server's own log ({DATA_FOLDER}/{LOG_FILE})")
    size = int(facts.get("aof_current_size", 0))
    return ok(SUBJECT, "persistence", f"the last write and rewrite succeeded; its file has {size / MIB:.1f} MiB")


def _clients(facts: Mapping[str, str]) -> Iterator[Finding]:
    with suppress(KeyError):  # some servers do not say
        now, most = int(facts["connected_clients"]), int(facts["maxclients"])
        verdict = Verdict.WARN if now >= most * CLIENTS_UNTIL else Verdict.OK
        yield judged(SUBJECT, "clients", verdict, f"{now} of {most}", "raise maxclients, or find who connects")
