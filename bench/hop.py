"""What one hop over the bus costs: a 1 KiB job to one of two workers and its result back, beside four peers and beside the floor.

64 in flight tells the throughput, one at a time the latency. Ours has all guarantees on (bench/_hop_bus.py), the floor none
(bench/_hop_floor.py). Contenders take turns, several rounds, so that what else the machine does falls on all; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from bench._children import BenchmarkFailed
from bench._hop_peers import PEERS, peer
from bench._hop_turn import Contender, Figures, Load, ours, turn
from host.embedded import find_server

THROUGHPUT, LATENCY = "in_flight_64", "one_at_a_time"
WANTED_TIMES_FASTEST_PEER = 2.0
WANTED_MORE_CPU_US = 150.0
"""Of an agent that keeps state and history, in all processes together."""


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """All figures: rates in jobs a second, times in ms, CPU in µs a job."""
    options = _options(arguments)
    loads = (Load(64, options.seconds), Load(1, options.seconds))
    if options.agent is not None:
        return _beside_a_plain_one(options, loads)
    peers, missing = _peers([] if options.peers == "none" else options.peers.split(","))
    contenders = [ours("ours", "bench._hop_bus"), ours("floor", "bench._hop_floor"), *peers]
    turns: dict[str, list[dict[str, Figures]]] = {contender.name: [] for contender in contenders}
    for _ in range(options.rounds):
        for contender in [one for one in contenders if one.name not in missing]:
            try:
                turns[contender.name].append(turn(contender, loads, options.fsync))
            except BenchmarkFailed as error:
                if contender not in peers:
                    raise
                missing[contender.name] = str(error)
    medians = {name: _medians(measured) for name, measured in turns.items() if name not in missing}
    return {
        "redis": str(find_server()),
        "fsync": options.fsync,
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "ours": medians.pop("ours"),
        "floor": (floor := medians.pop("floor")),
        "peers": medians | {name: {"missing": reason} for name, reason in missing.items()},
        "ratios": _ratios(_medians(turns["ours"]), floor, medians),
    }


def _beside_a_plain_one(options: argparse.Namespace, loads: Sequence[Load]) -> dict[str, Any]:
    """An agent that keeps something beside one that does not, in turns: what it costs more is the median of the turns' differences."""
    os.environ["BENCH_EXCHANGES"] = str(options.exchanges)
    plain, keeping = ours("plain", "bench._hop_bus"), ours(options.agent, "bench._hop_bus", options.agent)
    pairs: list[tuple[dict[str, Figures], dict[str, Figures]]] = []
    for number in range(options.rounds):
        order = (plain, keeping) if number % 2 == 0 else (keeping, plain)
        measured = {one.name: turn(one, loads, options.fsync) for one in order}
        pairs.append((measured["plain"], measured[options.agent]))
    return {
        "rounds": options.rounds,
        "exchanges": options.exchanges,
        "plain": _medians([one for one, _ in pairs]),
        options.agent: _medians([other for _, other in pairs]),
        "more_cpu_us": {
            load.name: {
                part: round(
                    statistics.median(
                        _part(other[load.name], part) - _part(one[load.name], part) for one, other in pairs
                    ),
                    1,
                )
                for part in ("producer", "workers", "redis", "")
            }
            for load in loads
        },
        "wanted_more_cpu_us": WANTED_MORE_CPU_US,
    }


def _part(load: Figures, part: str) -> float:
    """CPU of the processes whose name begins so, a job; of all for ''."""
    return float(sum(value for name, value in load.items() if name.startswith(part) and name.endswith("_cpu_us")))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench hop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, two a turn")
    parser.add_argument("--peers", default=",".join(PEERS), help="a list with commas, or none")
    parser.add_argument(
        "--agent", choices=("state",), help="one that keeps state and history, beside a plain one; no peers"
    )
    parser.add_argument("--exchanges", type=int, default=20, help="of a conversation in that comparison")
    parser.add_argument("--fsync", choices=("second", "always"), default="second", help="of every contender's server")
    return parser.parse_args(arguments)


def _peers(names: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """Those that can run, and why the others cannot."""
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            found.append(peer(name))
        except BenchmarkFailed as error:
            missing[name] = str(error)
    return found, missing


def _medians(turns: list[dict[str, Figures]]) -> dict[str, Figures]:
    return {
        load: {name: round(statistics.median(one[load][name] for one in turns), 3) for name in turns[0][load]}
        for load in turns[0]
    }


def _ratios(
    mine: dict[str, Figures], floor: dict[str, Figures], peers: dict[str, dict[str, Figures]]
) -> dict[str, Any]:
    rate = mine[THROUGHPUT]["rate_per_second"]
    ratios: dict[str, Any] = {
        "rate_to_floor": round(rate / floor[THROUGHPUT]["rate_per_second"], 3),
        "p50_to_floor": round(mine[LATENCY]["p50_ms"] / floor[LATENCY]["p50_ms"], 2),
    }
    if peers:
        fastest = max(peers, key=lambda name: peers[name][THROUGHPUT]["rate_per_second"])
        quickest = min(peers, key=lambda name: peers[name][LATENCY]["p50_ms"])
        ratios |= {
            "fastest_peer": fastest,
            "times_fastest_peer": round(rate / peers[fastest][THROUGHPUT]["rate_per_second"], 2),
            "wanted_times_fastest_peer": WANTED_TIMES_FASTEST_PEER,
            "cpu_to_fastest_peer": round(_part(mine[THROUGHPUT], "") / _part(peers[fastest][THROUGHPUT], ""), 2),
            "quickest_peer": quickest,
            "p50_to_quickest_peer": round(mine[LATENCY]["p50_ms"] / peers[quickest][LATENCY]["p50_ms"], 2),
        }
    return ratios


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])))
