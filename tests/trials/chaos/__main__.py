"""`python -m tests.trials.chaos --messages N --people P --seed S [--kill supervisor,worker,…] [--rate R] --json`.

Real processes, a real Redis, a relay behind a bad network; everything is killed at seeded moments. One line of JSON; the exit
status is 0 only if nothing was lost, repeated, reordered, undecryptable or dead, no ratchet forked, and nothing of ours crashed.
With `rollback` among the kinds Redis comes back 1 to 30 s older, with `copied-back` the whole state directory does: then everybody is
answered within 30 s of what they say next.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from tests.trials.chaos.harm import COMES_BACK, KINDS
from tests.trials.chaos.run import Order, Outcome, run

EXIT_BAD = 1
REMEMBERERS = 4


def main() -> int:
    """Run it; the logs are kept where something was found, or where they were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.chaos", description=__doc__)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument(
        "--rememberers",
        type=int,
        help="more people, whom the agent asks, reminds and remembers (default 4; 0 where something comes back older)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill", default=",".join(KINDS), help="which kinds, with commas; empty: none")
    parser.add_argument("--kills", type=int, help="how many in all (default: one in 25 messages, at least 10)")
    parser.add_argument("--rate", type=float, default=10.0, help="messages a second, of all people together")
    parser.add_argument("--supervisors", type=int, choices=(1, 2, 3), help="default: by the seed")
    parser.add_argument("--seconds", type=float, default=300.0, help="at the longest, in all")
    parser.add_argument("--keep", type=Path, help="a directory for the logs and the state, kept")
    parser.add_argument("--json", action="store_true", help="one line of JSON (there is no other output)")
    arguments = parser.parse_args()
    kinds = tuple(kind for kind in arguments.kill.split(",") if kind)
    if unknown := set(kinds) - {*KINDS, *COMES_BACK}:
        parser.error(f"--kill knows {', '.join((*KINDS, *sorted(COMES_BACK)))}, not {', '.join(sorted(unknown))}")
    kills = arguments.kills if arguments.kills is not None else max(10, arguments.messages // 25)
    comes_back = not COMES_BACK.isdisjoint(kinds)
    if comes_back and arguments.rememberers:
        parser.error(
            "what comes back older has forgotten what it was told: no --rememberers with rollback or copied-back"
        )
    rememberers = arguments.rememberers if arguments.rememberers is not None else 0 if comes_back else REMEMBERERS
    order = Order(
        messages=arguments.messages,
        people=arguments.people,
        seed=arguments.seed,
        kinds=kinds,
        kills=kills if kinds else 0,
        rate=arguments.rate,
        supervisors=arguments.supervisors or arguments.seed % 3 + 1,
        seconds=arguments.seconds,
        rememberers=rememberers,
    )
    return _run_in(order, arguments.keep)


def _run_in(order: Order, keep: Path | None) -> int:
    directory = keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    outcome = trio.run(run, order, directory)
    print(json.dumps(_line(outcome), separators=(",", ":")), flush=True)
    if not outcome.is_good:
        _tell(outcome.findings, directory)
        return EXIT_BAD
    if keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _line(outcome: Outcome) -> dict[str, object]:
    verdict = msgspec.structs.asdict(outcome.verdict)
    unexpected = verdict.pop("unexpected")
    return {
        **verdict,
        "undecryptable": outcome.undecryptable,
        "dead": outcome.dead + unexpected,
        "forks": outcome.forks,
        "unanswered": outcome.unanswered,
        "streams_left": outcome.streams_left,
        "put_aside": outcome.put_aside,
        "rounds": outcome.rounds,
        "asked_again": outcome.asked_again,
        "forgotten": outcome.forgotten,
        "kills": outcome.kills,
        "seconds": round(outcome.seconds, 1),
    }


def _tell(findings: Sequence[str], directory: Path) -> None:
    for finding in findings:
        print(finding, file=sys.stderr)
    print(f"logs and state: {directory}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
