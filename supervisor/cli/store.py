"""What the commands that look into the store share: the way to it, and how they name, ask and tell."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import click

from bus.client import RedisClient, open_redis
from bus.keys import Keys
from bus.seal import StoreSeal, StoreSealed
from bus.sealing import StoreKeys
from bus.wire import RedisFailed
from supervisor.key_settings import KeySettings
from supervisor.redis_server import RedisDoesNotStart
from supervisor.secrets import load_store_secret
from supervisor.store_access import NoStore, reach_store, running_supervisor


class NotThere(Exception):
    """What was named is not in the store."""


REFUSALS = (StoreSealed, NoStore, NotThere, RedisDoesNotStart, RedisFailed)


class OpenStore(NamedTuple):
    """One agent's store."""

    client: RedisClient
    names: Keys
    keys: StoreKeys
    state_dir: Path


@asynccontextmanager
async def open_store() -> AsyncIterator[OpenStore]:
    """The store that the environment names. Raises SettingsError and REFUSALS."""
    settings = KeySettings.from_environ(os.environ)
    secret = settings.store_key or load_store_secret(settings.state_dir)
    if secret is None:
        raise NoStore("there is no store secret yet; the first start of `hashee-agent up` makes it")
    names = Keys(settings.agent_id)
    async with reach_store(settings) as url, open_redis(url) as client:
        keys = await StoreSeal(client, names).adopt(secret.reveal())
        yield OpenStore(client, names, keys, settings.state_dir)


async def when_tried(store: OpenStore) -> str:
    """When what was marked is tried: by whoever runs."""
    if await running_supervisor(store.client, store.names) is None:
        return "no supervisor runs now; this is done when one starts (hashee-agent up)"
    return "a supervisor runs and does this within a second or two"


class Choice(NamedTuple):
    """Which ones a command is about."""

    ids: tuple[str, ...]
    everything: bool
    reason: str | None

    def check(self) -> None:
        """Exactly one way of naming them. Raises click.UsageError."""
        if (len(self.ids) > 0) + self.everything + (self.reason is not None) != 1:
            raise click.UsageError("name them by id, or with --all, or with --reason REASON")


def confirm(what_is_lost: str, *, yes: bool) -> None:
    """Before something is lost for good. Raises click.Abort; without a terminal only --yes counts."""
    click.echo(what_is_lost, err=True)
    if not yes:
        click.confirm("Drop?", abort=True, err=True)


def shown(text: str) -> str:
    """What strangers have written, with nothing that a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def time_of(at_ms: int) -> str:
    """Local time with its offset, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(sep=" ", timespec="milliseconds")


def facts(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {shown(str(value))}")
