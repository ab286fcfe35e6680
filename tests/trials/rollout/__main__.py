"""`python -m tests.trials.rollout --strategy kubernetes|systemd|upgrade --messages N --json`.

Real processes under traffic while versions change, the relay enforcing three connections. One line of JSON on standard output,
what else is worth knowing on standard error; the exit status is 0 only if every figure is as promised.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import trio

from tests.trials.rollout.promises import what_is_bad
from tests.trials.rollout.run import Order, run
from tests.trials.rollout.strategies import STRATEGIES

EXIT_BAD = 1
TROUBLES = ("crash", "kill-old", "restart-redis")


def main() -> int:
    """Run it; the logs are kept where something was found, or where they were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.rollout", description=__doc__)
    parser.add_argument("--strategy", choices=sorted(STRATEGIES), required=True)
    parser.add_argument(
        "--messages", type=int, default=600, help="at least; traffic goes on until the rollouts are over"
    )
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second, of all people together")
    parser.add_argument("--rollouts", type=int, default=1, help="one after the other")
    parser.add_argument("--trouble", choices=TROUBLES, default="", help="what goes wrong in it")
    parser.add_argument("--max-connections", type=int, choices=(1, 2, 3), default=3, help="HASHEE_MAX_CONNECTIONS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a directory for the logs and the state, kept")
    parser.add_argument("--json", action="store_true", help="one line of JSON (there is no other output)")
    given = parser.parse_args()
    order = Order(
        strategy=given.strategy,
        messages=given.messages,
        people=given.people,
        rate=given.rate,
        rollouts=given.rollouts,
        trouble=given.trouble,
        seed=given.seed,
        max_connections=given.max_connections,
    )
    directory = given.keep or Path(tempfile.mkdtemp(prefix="rollout-"))
    directory.mkdir(parents=True, exist_ok=True)
    outcome = trio.run(run, order, directory)
    print(msgspec.json.encode(outcome.figures).decode(), flush=True)
    bad = what_is_bad(outcome, order)
    for line in (*outcome.notes, *bad):
        print(line, file=sys.stderr)
    if bad:
        print(f"logs and state: {directory}", file=sys.stderr, flush=True)
        return EXIT_BAD
    if given.keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
