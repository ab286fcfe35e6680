"""Budgets in bytes: the limit is found in every kind of control group, and its shares fit into it."""

from pathlib import Path

import pytest

from host.budgets import MIB, Budgets, memory_limit_bytes

V1_UNLIMITED = 9223372036854771712
BASELINE_BYTES = 200 * MIB

pytestmark = pytest.mark.pure


class Machine:
    """`/proc` and `/sys/fs/cgroup` of a machine with 8 GiB."""

    def __init__(self, path: Path, groups: str) -> None:
        self.proc, self.cgroups = path / "proc", path / "cgroup"
        self.write(self.proc / "meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n")
        self.write(self.proc / "self/cgroup", groups)

    def write(self, path: Path, text: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}", encoding="utf-8")

    def limited(self, path: str, value: object) -> None:
        self.write(self.cgroups / path, value)

    @property
    def limit_bytes(self) -> int:
        return memory_limit_bytes(self.proc, self.cgroups)


def test_the_lowest_limit_of_all_levels_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/system.slice/agent.service\n")
    machine.limited("system.slice/agent.service/memory.max", "max\n")
    machine.limited("system.slice/memory.max", f"{512 * MIB}\n")
    machine.limited("memory.max", f"{1024 * MIB}\n")
    assert machine.limit_bytes == 512 * MIB


def test_where_a_group_is_slowed_down_is_its_limit_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/agent\n")
    machine.limited("agent/memory.max", f"{512 * MIB}\n")
    machine.limited("agent/memory.high", f"{400 * MIB}\n")
    assert machine.limit_bytes == 400 * MIB


def test_older_kernels_say_it_elsewhere(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "5:devices:/\n4:memory:/docker/abc\n0::/\n")
    machine.limited("memory/docker/abc/memory.limit_in_bytes", f"{256 * MIB}\n")
    machine.limited("memory/memory.limit_in_bytes", V1_UNLIMITED)
    assert machine.limit_bytes == 256 * MIB


def test_in_a_container_the_path_is_the_hosts_and_the_limit_stands_at_the_mount(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/kubepods/pod1/container\n")
    machine.limited("memory/memory.limit_in_bytes", f"{384 * MIB}\n")
    assert machine.limit_bytes == 384 * MIB


def test_without_a_limit_it_is_the_machine(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/\n0::/\n")
    machine.limited("memory/memory.limit_in_bytes", V1_UNLIMITED)
    machine.limited("memory.max", "max")
    assert machine.limit_bytes == 8192 * MIB


def test_this_machine_has_a_limit() -> None:
    assert 64 * MIB < memory_limit_bytes() < 1 << 46


@pytest.mark.parametrize(("limit_mib", "redis_mib"), [(256, 32), (384, 64), (512, 96), (2048, 480), (65536, 1024)])
def test_the_private_redis_gets_its_share(limit_mib: int, redis_mib: int) -> None:
    assert Budgets.of(limit_mib * MIB).redis_bytes == redis_mib * MIB


def test_the_owners_word_counts_more() -> None:
    assert Budgets.of(512 * MIB, 200 * MIB).redis_bytes == 200 * MIB


@pytest.mark.parametrize("limit_mib", [512, 768, 1024, 4096])
def test_all_shares_fit_with_a_rewrite_that_copies_half_of_redis(limit_mib: int) -> None:
    budgets = Budgets.of(limit_mib * MIB)
    assert BASELINE_BYTES + budgets.redis_bytes * 3 // 2 + budgets.intake_bytes <= limit_mib * MIB * 0.8
