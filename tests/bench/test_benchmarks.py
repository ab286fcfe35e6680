"""Each benchmark runs, at a size that says nothing about speed, and prints the figures that its page names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import pipeline
from bench._children import BenchmarkFailed
from bench._hop_peers import peer

NO_TIME = 60.0
ROOT = Path(__file__).parents[2]
SIDES = {"producer_cpu_us", "workers_cpu_us", "redis_cpu_us"}
TIMES = {"rate_per_second", "p50_ms", "p99_ms"}


def figures_of(*arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=NO_TIME, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    figures = json.loads(line)
    assert isinstance(figures, dict)
    return figures


def test_hop_measures_our_bus_and_the_floor() -> None:
    figures = figures_of("hop", "--peers", "none", "--rounds", "1", "--seconds", "0.2")
    for contender in ("ours", "floor"):
        loads = figures[contender]
        assert isinstance(loads, dict)
        assert set(loads) == {"in_flight_64", "one_at_a_time"}
        for load in loads.values():
            assert load.keys() >= TIMES | SIDES
            assert load["rate_per_second"] > 0
            assert 0 < load["p50_ms"] <= load["p99_ms"]
    assert figures["peers"] == {}
    ratios = figures["ratios"]
    assert isinstance(ratios, dict)
    assert ratios["rate_to_floor"] > 0


@pytest.mark.long
def test_hop_measures_an_agent_that_keeps_something_beside_a_plain_one() -> None:
    figures = figures_of("hop", "--agent", "state", "--rounds", "1", "--seconds", "0.1", "--exchanges", "3")
    for contender in ("plain", "state"):
        loads = figures[contender]
        assert isinstance(loads, dict)
        assert loads["in_flight_64"].keys() >= TIMES | SIDES
    more = figures["more_cpu_us"]
    assert isinstance(more, dict)
    assert set(more["one_at_a_time"]) == {"producer", "workers", "redis", ""}


def test_waiting_measures_what_open_questions_cost_the_others() -> None:
    figures = figures_of("waiting", "--count", "4", "--rounds", "1", "--messages", "2")
    for kind in ("waits", "reminders"):
        found = figures[kind]
        assert isinstance(found, dict)
        for name in ("elsewhere_ms", "elsewhere_redis_cpu_us", "there_ms", "there_redis_cpu_us", "look_redis_cpu_us"):
            assert set(found[name]) == {"without", "beside", "ratio"}
            assert found[name]["ratio"] > 0
        assert "bytes_each" in found


def test_a_peer_that_cannot_run_says_why() -> None:
    with pytest.raises(BenchmarkFailed, match="no peer of this name; there are dramatiq, taskiq, arq, faststream"):
        peer("nobody")


@pytest.mark.long
def test_pipeline_measures_what_tracing_costs_in_turns() -> None:
    pytest.importorskip("opentelemetry.sdk")
    figures = figures_of("pipeline", "--otel", "--people", "2", "--rounds", "2", "--messages", "2")
    ratios = figures["ratios"]
    assert isinstance(ratios, dict)
    assert set(ratios) == {"supervisor", "workers", "redis", "agent"}
    for side in ("off", "on"):
        load = figures[side]
        assert isinstance(load, dict)
        assert load["agent_cpu_ms"] > 0


@pytest.mark.long
def test_pipeline_measures_another_checkout_in_turns() -> None:
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("this checkout has no .venv of its own")
    figures = figures_of("pipeline", "--beside", str(ROOT), "--people", "2", "--rounds", "2", "--messages", "2")
    ratios = figures["ratios"]
    assert isinstance(ratios, dict)
    assert set(ratios) == {"supervisor", "workers", "redis", "agent"}
    for side in ("there", "here"):
        load = figures[side]
        assert isinstance(load, dict)
        assert load["agent_cpu_ms"] > 0


def test_pipeline_says_what_another_checkout_lacks(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkFailed, match=r"there is no .*/\.venv/bin/python: run `make setup` in that checkout"):
        pipeline.run(["--beside", str(tmp_path)])


def test_pipeline_measures_every_process_on_a_message_s_way() -> None:
    figures = figures_of("pipeline", "--people", "2", "--rounds", "1", "--messages", "2")
    parts = {f"{part}_cpu_ms" for part in ("supervisor", "workers", "redis", "relay", "keeper", "people")}
    for load in (figures["everybody"], figures["somebody"]):
        assert isinstance(load, dict)
        assert load.keys() == TIMES | parts
        assert load["rate_per_second"] > 0
        assert 0 < load["p50_ms"] <= load["p99_ms"]
        assert all(load[part] >= 0 for part in parts)


@pytest.mark.long
def test_more_people_than_one_worker_has_slots_for_are_answered_at_the_same_time_without_any_setting() -> None:
    command = [sys.executable, "-m", "bench", "answers", "--json", "--people", "70", "--seconds", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * NO_TIME, check=False, encoding="utf-8")
    if "can be set here" in done.stderr:
        pytest.skip("no limit of CPU and memory can be set here: it needs root and cgroup v1")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["written_at_the_same_time"] == 70
    assert (figures["times_asked"], figures["whole_answers"], figures["oom_kills"]) == (70, 70, 0)
    assert figures["most_memory_mib"] < 400
    assert figures["most_descriptors_of_a_worker"] < 200


@pytest.mark.long
def test_files_measures_memory_and_time_beside_a_bare_copy() -> None:
    figures = figures_of("files", "--mib", "4", "--turns", "1")
    bare, ratios, wanted = figures["bare_mib_per_second"], figures["ratios"], figures["wanted"]
    above, ours = figures["peak_above_idle_mib"], figures["ours_mib_per_second"]
    assert isinstance(bare, dict)
    assert isinstance(ratios, dict)
    assert isinstance(wanted, dict)
    assert isinstance(above, dict)
    assert bare.keys() == ratios.keys() > {wanted["to"]}
    for found in (ours, *bare.values(), *ratios.values()):
        assert found["in"] > 0
        assert found["out"] > 0
    assert above["worker"] <= wanted["peak_above_idle_mib"]
    assert above["gate"] <= wanted["peak_above_idle_mib"]
