"""Formats the status for people: plain tables from the JSON that scripts get."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bus.steps.last_backup import AHEAD_MS
from bus.transport.clock import clock_fault
from supervisor.pool.crash_loop import KILLED_FOR

MIB = 1 << 20
KEPT_BY_HANDLERS = (("state", "state of {} conversations"), ("history", "history of {}"), ("store", "the store"))
Json = Mapping[str, Any]  # the agent's answer, in which another version may leave out or add something


def page(status: Json) -> Group:
    """Returns the page. `status`: with `keeper`, `supervisor` and `problem`."""
    supervisor = status.get("supervisor")
    if not supervisor:
        return Group(_facts(_keeper(status.get("keeper"))), Text(str(status.get("problem") or "no supervisor")))
    return Group(*_parts(status, supervisor))


def _parts(status: Json, supervisor: Json) -> Iterable[RenderableType]:
    yield _facts(
        [
            *_keeper(status.get("keeper")),
            *_supervisor(supervisor),
            *_work(supervisor),
            *files_lines(supervisor),
            *_redis(supervisor),
        ]
    )
    yield ""
    yield _workers(supervisor)
    pool = supervisor.get("pool", {})
    if pool.get("crash_loop") and pool.get("last_words"):
        yield "\nThe last lines of the worker that died last:"
        yield Text("\n".join(pool["last_words"]))


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _keeper(keeper: Json | None) -> list[tuple[str, str]]:
    if keeper is None:
        return []
    facts = f"pid {keeper['pid']}, {keeper['state']}, up {_span(keeper['uptime_seconds'])}, {keeper['redis']} Redis"
    rows = [("keeper", facts)]
    if gate := keeper.get("files"):
        runs = f"the gate's pid {gate['pid']}" if gate["pid"] else "the gate starts with the first one"
        rows.append(("file gate", runs + (f", it has died {gate['deaths']} times" if gate["deaths"] else "")))
    if keeper.get("upgrade"):
        rows.append(("upgrade", keeper["upgrade"]))
    return rows


def _supervisor(status: Json) -> list[tuple[str, str]]:
    connection, rates = status["connection"], status["rates"]
    heard = connection["heard_seconds_ago"]
    said = "" if heard is None else f", heard {heard:.0f} s ago"
    refused = f", refused: {connection['refusal']}" if connection["refusal"] else ""
    bad = [f"{check['name']}: {check['detail']}" for check in status["checks"] if not check["ok"]]
    return [
        ("supervisor", f"pid {status['pid']}, version {status['version']}, up {_span(status['uptime_seconds'])}"),
        ("ready", "yes" if not bad else "; ".join(bad)),
        ("connection", f"{connection['state']}, {connection['detail']}{said}{refused}"),
        ("people", f"{_count(status['people'])}, sessions {_count(status['sessions'])}"),
        ("messages", f"{rates['received']} received, {rates['sent']} sent"),
        ("per minute", f"{rates['received_per_minute']:g} received, {rates['sent_per_minute']:g} sent"),
        ("prekeys left", _count(status["prekeys_left"])),
        *_backup(status),
        *_identity(status.get("identity_since_ms")),
    ]


def _backup(status: Json) -> list[tuple[str, str]]:
    """Returns the row about the last backup; none for a former release, while Redis does not answer, or if no backup is expected."""
    backup, most_hours = status.get("last_backup"), status.get("backup_max_age_seconds", 0) / 3600
    if backup is None:
        return [("backup", "none of this store is known")] if most_hours and status["work"] is not None else []
    now_ms = time.time() * 1000 + (status["redis"] or {}).get("clock_ahead_ms", 0)
    seconds = (now_ms - backup["made_ms"]) / 1000
    if seconds * 1000 < -AHEAD_MS:
        when = f"dated {_span(-seconds)} ahead of Redis' clock, so its age is not known"
    else:
        late = f", older than {most_hours:g} h" if most_hours and seconds > most_hours * 3600 else ""
        when = f"{_span(max(0.0, seconds))} ago{late}"
    return [("backup", f"{when}, {backup['size_bytes'] / MIB:.1f} MiB, {backup['place']}")]


def _identity(since_ms: int | None) -> list[tuple[str, str]]:
    if since_ms is None:
        return []
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(since_ms / 1000))
    return [
        (
            "identity",
            f"new keys since {day}: people see that the agent's keys have changed, and are asked to accept them",
        )
    ]


def _work(status: Json) -> list[tuple[str, str]]:
    work = status["work"]
    if work is None:
        return [("work", "unknown while Redis does not answer")]
    waiting = work["waiting"] + work["queued"]
    return [
        ("jobs", f"{waiting} waiting, {work['running']} running, {work['due']} to be tried again"),
        ("replies", f"{work['unsent']} to be sent, {work['unacknowledged']} not acknowledged{_outside(work)}"),
        ("given up", f"{work['dead_letters']} dead letters, {work['quarantined']} in quarantine"),
        ("at the relay", f"{work['held_senders']} senders wait there, {work['notes']} notes"),
        *_timers(work),
        *threads_lines(work),
    ]


def files_lines(status: Json) -> list[tuple[str, str]]:
    """The line of the files that the gate has passed on; none where there were none, and for a former release."""
    files = status.get("files") or {}
    failed = sum(files.get("failures", {}).values())
    passed = [
        f"{files['transfers'][way]} {way} ({files['transferred_bytes'].get(way, 0) / MIB:.1f} MiB)"
        for way in ("in", "out")
        if files.get("transfers", {}).get(way)
    ]
    if not passed and not failed:
        return []
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(files.get("failures", {}).items()))
    return [("files", ", ".join([*passed, *([f"failed calls: {reasons}"] if failed else [])]))]


def _outside(work: Json) -> str:
    waits = work.get("outside", 0)
    return f", {waits} from outside wait for their turn" if waits else ""


def _timers(work: Json) -> list[tuple[str, str]]:
    if not work.get("timers"):
        return []
    due = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(work["next_timer_ms"] / 1000))
    return [("timers", f"{work['timers']} to come, the next at {due}")]


def threads_lines(work: Json) -> list[tuple[str, str]]:
    """The line of what threads keep while they wait or run; none where they keep nothing."""
    waits, waits_bytes, journal = (work.get(name, 0) for name in ("open_waits", "waits_bytes", "journal_bytes"))
    if not waits and not journal:
        return []
    return [("questions", f"{waits} open ({_kib(waits_bytes)} of 64 MiB), noted by what runs: {_kib(journal)}")]


def _kib(size: int) -> str:
    return f"{-(-size // 1024)} KiB"


def _redis(status: Json) -> list[tuple[str, str]]:
    redis = status["redis"]
    if redis is None:
        return [("redis", "does not answer")]
    server = redis["server"]
    most = f" of {server['most_bytes'] // MIB} MiB" if server["most_bytes"] else ""
    kinds = sorted(redis["kinds"].items(), key=lambda kind: -kind[1]["about_bytes"])[:5]
    shown = ", ".join(f"{name} {kind['keys']} (~{kind['about_bytes'] // 1024} KiB)" for name, kind in kinds)
    used = f"{server['used_bytes'] / MIB:.1f} MiB{most}"
    skew = clock_fault(redis.get("clock_ahead_ms", 0))
    said = f"{server['version']}, {used}, {redis['round_trip_ms']:g} ms, up {_span(server['uptime_seconds'])}"
    return [
        ("redis", f"{said}, {skew}" if skew else said),
        *kept_lines(redis["kinds"]),
        ("keys", shown + ("" if redis["kinds_complete"] else ", and more")),
    ]


def kept_lines(kinds: Json) -> list[tuple[str, str]]:
    """The line of what handlers keep between messages; none where they keep nothing."""
    there = [(words.format(kinds[name]["keys"]), kinds[name]) for name, words in KEPT_BY_HANDLERS if name in kinds]
    shown = ", ".join(f"{words} (~{kind['about_bytes'] // 1024} KiB)" for words, kind in there)
    return [("kept", shown)] if shown else []


def _workers(status: Json) -> RenderableType:
    pool = status["pool"]
    heading = f"workers: {pool['ready']} ready of {pool['wanted']} (size {pool['size']})"
    if pool["reloading"]:
        heading += ", reloading"
    if pool["reload_problem"]:
        heading += f"\nthe last reload failed, the old workers stay: {pool['reload_problem']}"
    if loop := pool["crash_loop"]:
        last = loop["last"]
        what = KILLED_FOR.get(last["reason"]) or " ".join(part for part in (last["exception"], last["at"]) if part)
        heading += f"\ncrash loop: {loop['deaths']} deaths, the last one with status {last['status']} {what}".rstrip()
    table = Table(box=None, pad_edge=False, header_style="")
    for column in ("worker", "host", "pid", "state", "up", "jobs", "done", "failed", "memory", "lag"):
        table.add_column(column, justify="left" if column in {"worker", "host", "state"} else "right")
    for worker in status["workers"]:
        table.add_row(*_worker(worker, str(worker["number"]), "here", worker["stage"]), _lag(worker))
    ours = (status["redis"] or {}).get("clock_ahead_ms", 0)
    for elsewhere in status["workers_elsewhere"]:
        its_clock = elsewhere.get("redis_clock_ahead_ms", 0) - ours
        uptime_seconds = time.time() - (elsewhere["started_ms"] + its_clock) / 1000
        worker = {**elsewhere, "uptime_seconds": max(0.0, uptime_seconds)}
        state = f"ready, its clock {'behind' if its_clock > 0 else 'ahead'}" if clock_fault(its_clock) else "ready"
        table.add_row(*_worker(worker, worker["consumer"], worker["host"], state), _lag(worker))
    return Group(Text(heading), table)


def _worker(worker: Json, name: str, host: str, state: str) -> list[str]:
    uptime = worker.get("uptime_seconds")
    return [
        name,
        host,
        str(worker["pid"] or "-"),
        state,
        "-" if uptime is None else _span(uptime),
        f"{worker['running']}/{worker['concurrency']}",
        str(worker["jobs_done"]),
        str(worker["jobs_failed"]),
        "-" if worker["rss_bytes"] is None else f"{worker['rss_bytes'] / MIB:.0f} MiB",
    ]


def _lag(worker: Json) -> str:
    lag = worker["loop_lag_ms"]
    return "-" if lag is None else f"{lag:.0f} ms"


def _count(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
