"""`python -m tests.trials.fuzz [--seconds N] [--target NAME]`: the longer run of the decoder fuzzing.

With `atheris` installed, its coverage guides the search; without it, the same targets are run on mutated
samples. Either way the first input that breaks the rule of tests/trials/fuzz/decoders.py is printed and ends it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if importlib.util.find_spec("atheris"):
    # Before the first import of them: only what is to be guided is instrumented, which takes a second and not a quarter
    # of a minute for each decoder.
    with importlib.import_module("atheris").instrument_imports(include=["crypto", "tests.trials.fuzz.decoders"]):
        importlib.import_module("tests.trials.fuzz.decoders")

from tests.trials.fuzz.decoders import MAX_SECONDS, Target, run, targets
from tests.trials.fuzz.mutate import mutate


def main() -> None:
    """Fuzz all decoders, or one."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.trials.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for all decoders together")
    parser.add_argument("--target", choices=sorted(known))
    arguments = parser.parse_args()
    chosen = {arguments.target: known[arguments.target]} if arguments.target else known
    seconds = arguments.seconds / len(chosen)
    if importlib.util.find_spec("atheris"):
        if arguments.target:
            _guided(chosen[arguments.target], arguments.seconds)
        else:
            _guided_each(list(known), max(1, int(seconds)))
        return
    for name, target in chosen.items():
        print(f"{name:20} {_mutated(target, seconds)}", flush=True)


def _mutated(target: Target, seconds: float) -> str:
    chance = random.Random()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(chance.choice(target.samples), chance)
        begin = time.perf_counter()
        try:
            outcomes[str(run(target, data))] += 1
        except BaseException:
            print(f"input: {data.hex()}", file=sys.stderr)
            raise
        took = time.perf_counter() - begin
        if took > MAX_SECONDS:
            took = min(took, _again(target, data))
        slowest = max(slowest, took)
        if slowest > MAX_SECONDS:
            print(f"input: {data.hex()}", file=sys.stderr)
            raise SystemExit(f"took {slowest * 1000:.1f} ms")
    counted = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    return f"{sum(outcomes.values())} inputs, slowest {slowest * 1000:.2f} ms: {counted}"


def _again(target: Target, data: bytes) -> float:
    """A second look at a slow input: another process may have had the core."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        run(target, data)
        times.append(time.perf_counter() - begin)
    return min(times)


def _guided_each(names: list[str], seconds: int) -> None:
    """A process for each decoder: a guided run ends its process."""
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "tests.trials.fuzz", "--target", name, "--seconds", str(seconds)]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
    if failed:
        raise SystemExit(f"broken: {', '.join(failed)}")


def _guided(target: Target, seconds: int) -> None:
    atheris = importlib.import_module("atheris")
    with tempfile.TemporaryDirectory() as corpus:
        for number, sample in enumerate(target.samples):
            Path(corpus, str(number)).write_bytes(sample)
        options = [f"-max_total_time={seconds}", "-timeout=5", "-print_final_stats=1", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: run(target, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
