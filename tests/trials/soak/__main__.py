"""`python -m tests.trials.soak --minutes 10 --rate 100 --json` (`make soak`): nothing grows with messages that were answered.

Real processes, nothing is killed. Ends with 1 unless everything was answered, once and in order, and Redis' memory and the resident
memory of every process of the agent is within 10 % of what it was at minute 2. It begins with a full ledger; what the ledger and the id
memories take, which have bounds of their own, is shown. What is bad goes to standard error.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import trio

from tests.trials.soak.run import Order, Outcome, run

MOST_GROWTH = 0.10
EXIT_BAD = 1


def main() -> int:
    """Run it; logs and state are kept where something is bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second, of all people together")
    parser.add_argument("--people", type=int, default=36)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    outcome = trio.run(run, Order(seconds=given.minutes * 60, rate=given.rate, people=given.people), directory)
    print(msgspec.json.encode(outcome).decode() if given.json else _table(outcome), flush=True)
    bad = what_is_bad(outcome)
    for line in bad:
        print(line, file=sys.stderr)
    if bad:
        print(f"logs and state: {directory}", file=sys.stderr, flush=True)
        return EXIT_BAD
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def what_is_bad(outcome: Outcome) -> list[str]:
    """Nothing, if all is as it should be."""
    bad = [f"{what} grew by {share:.1%}" for what, share in outcome.growth.items() if share > MOST_GROWTH]
    if outcome.answered != outcome.sent:
        bad.append(f"answered {outcome.answered} of {outcome.sent}")
    if outcome.wrong:
        bad.append(f"{outcome.wrong} people heard something else than every answer once and in order")
    if outcome.unreadable:
        bad.append(f"{outcome.unreadable} answers could not be read")
    if outcome.crashes:
        bad.append(f"{outcome.crashes} tracebacks in the logs")
    if outcome.went_back:
        bad.append(f"Redis was thought to have gone back {outcome.went_back} times")
    return bad


def _table(outcome: Outcome) -> str:
    lines = [
        f"{outcome.sent} messages in {outcome.seconds:.0f} s ({outcome.rate_per_second} a second), {outcome.answered} answers",
        f"within it: ledger {outcome.base.ledger_bytes:,} -> {outcome.end.ledger_bytes:,} bytes,"
        f" id memories {outcome.base.ids_bytes:,} -> {outcome.end.ids_bytes:,} bytes",
    ]
    for what, share in outcome.growth.items():
        lines.append(f"{what:16}{outcome.judged_base[what]:>14,}{outcome.judged_end[what]:>14,}  {share:+.1%}")
    lines.append(f"keys at minute 2: {outcome.base.keys}")
    lines.append(f"keys at the end:  {outcome.end.keys}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
