"""`python -m tests.trials.drills [--only NAME …] [--people N] [--rounds N] [--keep DIRECTORY] [--json]`.

Real processes, a real Redis, a real relay that keeps what it stored; something comes back older, moves, refuses or stalls. A line for each drill, with --json as
JSON; the exit status is 0 only if in all of them nothing was lost, repeated, unanswered, forked or unnoticed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from tests.memory import own_memory
from tests.trials.drills.copied_back import copied_back
from tests.trials.drills.half_open import half_open, half_open_standby, slow_way
from tests.trials.drills.questions import questions_rolled_back
from tests.trials.drills.redis_goes_back import GOES_BACK
from tests.trials.drills.redis_of_others import (
    cluster_node_dies,
    cluster_slot_moves,
    redis_refuses,
    rights_taken_away,
    sentinel_failover,
)
from tests.trials.drills.redis_rolled_back import newcomers_rolled_back, redis_rolled_back
from tests.trials.drills.scene import Order, Outcome
from tests.trials.drills.worse import WORSE

DRILLS: dict[str, Callable[[Path, Order], Awaitable[Outcome]]] = {
    "copied-back": copied_back,
    "redis-rolled-back": redis_rolled_back,
    "newcomers-rolled-back": newcomers_rolled_back,
    "questions-rolled-back": questions_rolled_back,
    **WORSE,
    **GOES_BACK,
    "redis-refuses": redis_refuses,
    "rights-taken-away": rights_taken_away,
    "sentinel-failover": sentinel_failover,
    "cluster-slot-moves": cluster_slot_moves,
    "cluster-node-dies": cluster_node_dies,
    "half-open": half_open,
    "half-open-standby": half_open_standby,
    "slow-way": slow_way,
}
EXIT_BAD = 1


def main() -> int:
    """Run them one after the other; logs and state are kept where something was found, or where they were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trials.drills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=sorted(DRILLS), help="this one; may be given again")
    parser.add_argument("--people", type=int, default=Order().people)
    parser.add_argument("--rounds", type=int, default=Order().rounds, help="messages of each person in each part")
    parser.add_argument("--keep", type=Path, help="a directory for the logs and the state, kept")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each drill")
    arguments = parser.parse_args()
    order = Order(arguments.people, arguments.rounds)
    with own_memory():
        results = [_run(name, order, arguments.keep, as_json=arguments.json) for name in arguments.only or DRILLS]
    return 0 if all(results) else EXIT_BAD


def _run(name: str, order: Order, keep: Path | None, *, as_json: bool) -> bool:
    directory = Path(tempfile.mkdtemp(prefix="drill-")) if keep is None else keep / name
    directory.mkdir(parents=True, exist_ok=True)
    outcome = trio.run(DRILLS[name], directory, order)
    figures = msgspec.structs.asdict(outcome)
    words = "  ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in figures.items() if name != "drill")
    print(json.dumps(figures, separators=(",", ":")) if as_json else f"{outcome.drill}: {words}", flush=True)
    if not outcome.is_good:
        print(f"logs and state: {directory}", file=sys.stderr, flush=True)
    elif keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    return outcome.is_good


if __name__ == "__main__":
    sys.exit(main())
