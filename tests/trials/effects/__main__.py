"""`python -m tests.trials.effects [--example booking,lunch] [--victim worker,redis] [--each N] [--jobs N]`.

Each example's talk through relay, Redis, supervisor and worker: once undisturbed, then again for each effect (a script that writes in this conversation),
each process that is killed there, and before and after it is done. Prints the table and what was not the same; the exit status is 0 only if nothing was.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.trials.effects.scene import VICTIMS
from tests.trials.effects.talks import EXAMPLES, Example
from tests.trials.effects.walk import Row, points_of, stage

MOST_OF_A_TRACEBACK = 3000
ROW = "{:<18}{:<12}{:>8}{:>8}{:>8}{:>10}"


async def walk(example: Example, victims: Sequence[str], each: int) -> list[Row]:
    """One row for each victim."""
    with tempfile.TemporaryDirectory(prefix="effects-") as directory:
        async with stage(Path(directory), example) as one:
            usual = await one.talk()
            if usual.heard != list(example.hears) or usual.faults:
                finding = f"{example.name}: {usual.heard} {usual.faults}"
                return [_print(Row(example.name, "nobody", findings=[finding]))]
            points = points_of(usual.effects)[::each]
            rows = []
            for victim in VICTIMS:
                if victim in victims:
                    rows.append(_print(await one.struck(victim, points, usual)))
            log = (Path(directory) / "up.log").read_text(encoding="utf-8")
            if (at := log.find("Traceback")) >= 0:
                finding = f"{example.name}: {log[at : at + MOST_OF_A_TRACEBACK]}"
                rows.append(_print(Row(example.name, "log", findings=[finding])))
            return rows


async def walk_all(examples: Sequence[Example], victims: Sequence[str], each: int, jobs: int) -> list[Row]:
    """So many examples at a time, since most of a walk is waiting for processes that start."""
    limit, rows = trio.CapacityLimiter(jobs), list[Row]()

    async def one(example: Example) -> None:
        async with limit:
            rows.extend(await walk(example, victims, each))

    async with trio.open_nursery() as nursery:
        for example in examples:
            nursery.start_soon(one, example)
    return rows


def _print(row: Row) -> Row:
    seconds = f"{row.seconds:.0f} s"
    print(ROW.format(row.example, row.victim, row.points, row.struck, row.equal, seconds), flush=True)
    for finding in row.findings:
        print(f"  {finding}", flush=True)
    return row


def main() -> int:
    """Reads the options and walks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--example", default=",".join(one.name for one in EXAMPLES))
    parser.add_argument("--victim", default=",".join(VICTIMS))
    parser.add_argument("--each", type=int, default=1, help="only each so many points")
    parser.add_argument("--jobs", type=int, default=3, help="so many examples at a time")
    options = parser.parse_args()
    names, victims = options.example.split(","), options.victim.split(",")
    unknown = {*names} - {one.name for one in EXAMPLES} | {*victims} - {*VICTIMS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(ROW.format("example", "victim", "points", "struck", "equal", "time"), flush=True)
    rows = trio.run(walk_all, [one for one in EXAMPLES if one.name in names], victims, options.each, options.jobs)
    findings = sum(len(row.findings) for row in rows)
    print("all the same" if not findings else f"{findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
