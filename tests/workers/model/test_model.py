"""Plays of the model of threads, by their seeds: `make model` plays many more, and shows the shortest play of a fault."""

from collections.abc import Iterator

import pytest

from tests.bus.redis_scene import RedisScene
from tests.redis_server import redis_server
from tests.workers.model.play import play

TELLING = (70, 117, 143, 271, 327, 362, 897, 971)
"""They find rules 10, 8, 11, 12, 13, 6, 11 and 3 where they are taken out (tests/mutants/model.py), which the first ones do not."""

IN_MEMORY, IN_REDIS = (*range(60), *TELLING), range(100, 104)


@pytest.fixture
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


def test_whatever_happens_to_threads_nobody_hears_what_they_should_not_and_everything_ends() -> None:
    for seed in IN_MEMORY:
        play(seed)


def test_so_it_is_over_the_scripts(redis_url: str) -> None:
    for seed in IN_REDIS:
        play(seed, lambda: RedisScene(redis_url))


def test_the_same_seed_plays_the_same() -> None:
    assert play(7).ledger.trace == play(7).ledger.trace
