"""A backup and a restore that are killed in the middle leave nothing half (tests/supervisor/backup/kills.py tries many moments)."""

from pathlib import Path

import pytest

from tests.supervisor.backup.kills import PrivateHost, given_host, kill_backups, kill_restores


@pytest.mark.long
def test_killed_with_a_private_redis_nothing_is_half_and_the_next_try_comes_to_its_end(tmp_path: Path) -> None:
    host = PrivateHost(tmp_path / "host")
    assert kill_backups(host, (0.6, 0.9)).total() == 2
    assert kill_restores(host, (0.7, 0.93)).total() == 2


@pytest.mark.long
def test_killed_with_a_redis_of_your_own_nothing_is_half_and_the_next_try_comes_to_its_end(tmp_path: Path) -> None:
    with given_host(tmp_path / "host") as host:
        assert kill_restores(host, (0.8, 0.95)).total() == 2
