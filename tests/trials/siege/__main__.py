"""`python -m tests.trials.siege --target small|small-files|systemd|compose|kubernetes`: a line of JSON a target; status 0 only if each held.

Under the memory limits of the shipped manifests, in real cgroups (root, cgroup v1), twenty honest people talk while one sends
600 messages of 1 MB that cannot be opened, another 3,000 pings, another 3,000 short texts to a slow handler, fourteen write
100 texts as long as the platform allows, and one sends 10 files of 50 MB, which come back. In the midst of it everything is killed and started again.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import trio

from bench._children import BenchmarkFailed
from tests.trials.siege.handlers import SLOW_SECONDS
from tests.trials.siege.run import Order, as_line, run
from tests.trials.siege.targets import TARGETS

EXIT_BAD = 1
EXIT_NOT_HERE = 69  # EX_UNAVAILABLE

SHORT_TEXTS = 3000
DRAIN_SECONDS = 1.5 * SHORT_TEXTS * SLOW_SECONDS
"""The short texts are of one writer, so they are answered one after the other; half as much again for all else."""


def main() -> int:
    """Run it; the logs are kept where a target did not hold."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="python -m tests.trials.siege", description=__doc__)
    parser.add_argument("--target", action="append", choices=names, help="default: all, one after the other")
    parser.add_argument("--unreadable", type=int, default=600, help="messages of 1 MB that cannot be opened")
    parser.add_argument("--long-texts", type=int, default=100, help="of each of fourteen writers")
    parser.add_argument("--short-texts", type=int, default=SHORT_TEXTS, help="of one writer, to a slow handler")
    parser.add_argument("--pings", type=int, default=3000)
    parser.add_argument("--files", type=int, default=10, help="of one person, one after the other")
    parser.add_argument("--file-mib", type=int, default=50)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long honest people talk")
    parser.add_argument(
        "--drain-seconds", type=float, default=DRAIN_SECONDS, help="at the longest, until the others are answered"
    )
    parser.add_argument("--keep", type=Path, help="a directory for logs and state, kept")
    arguments = parser.parse_args()
    good = True
    for target in TARGETS:
        if arguments.target and target.name not in arguments.target:
            continue
        folder = arguments.keep or Path(tempfile.mkdtemp(prefix="siege-"))
        folder.mkdir(parents=True, exist_ok=True)
        order = Order(
            target=target,
            unreadable=arguments.unreadable,
            long_texts=arguments.long_texts,
            short_texts=arguments.short_texts,
            pings=arguments.pings,
            restarts=arguments.restarts,
            files=arguments.files if target.has_files else 0,
            file_mib=arguments.file_mib,
            seconds=arguments.seconds,
            drain_seconds=arguments.drain_seconds,
        )
        try:
            outcome = trio.run(run, order, folder)
        except BenchmarkFailed as problem:
            print(problem, file=sys.stderr)
            return EXIT_NOT_HERE
        print(as_line(outcome), flush=True)
        if not outcome.is_good:
            print(f"logs and state: {folder}", file=sys.stderr, flush=True)
            good = False
        elif arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else EXIT_BAD


if __name__ == "__main__":
    sys.exit(main())
