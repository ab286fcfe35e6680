"""Shared by the commands that use the store: opens it, selects entries, asks for confirmation, and formats values."""

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import click

from bus.records.keys import Keys
from bus.records.sealing import StoreKeys
from bus.steps.seal import StoreSeal, StoreSealed
from bus.transport.client import RedisClient, open_redis
from bus.transport.wire import RedisFailed
from supervisor.keeper.redis_server import RedisDoesNotStart
from supervisor.settings.key_settings import KeySettings
from supervisor.settings.secrets import Secret, load_store_secret
from supervisor.store.access import NoStore, reach_store, running_supervisor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

UNIT_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


class NotThere(Exception):
    """The named thing is not in the store."""


REFUSALS = (StoreSealed, NoStore, NotThere, RedisDoesNotStart, RedisFailed)


class OpenStore(NamedTuple):
    """The open store of one agent."""

    client: RedisClient
    names: Keys
    keys: StoreKeys
    secret: Secret[bytes]
    state_dir: Path


@asynccontextmanager
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens the store that the environment names. Raises SettingsError and REFUSALS."""
    settings = KeySettings.from_environ(os.environ)
    secret = settings.store_key or load_store_secret(settings.state_dir)
    if secret is None:
        raise NoStore("there is no store secret yet; the first start of `hashee-agent up` makes it")
    names = Keys(settings.agent_id)
    async with reach_store(settings) as url, open_redis(url) as client:
        keys = await StoreSeal(client, names).adopt(secret.reveal())
        yield OpenStore(client, names, keys, secret, settings.state_dir)


async def when_tried(store: OpenStore) -> str:
    """Returns a text about when marked messages are tried: at once if a supervisor runs, else at the next start."""
    if await running_supervisor(store.client, store.names) is None:
        return "no supervisor runs now; this is done when one starts (hashee-agent up)"
    return "a supervisor runs and does this within a second or two"


class Choice(NamedTuple):
    """The entries that a command is about: named ones, or those that match all given options."""

    ids: tuple[str, ...] = ()
    everything: bool = False
    reason: str | None = None
    sender: str | None = None
    older_than_seconds: float | None = None

    def check(self) -> None:
        """Refuses both ways at once, and neither. Raises click.UsageError."""
        is_selection = (self.reason, self.sender, self.older_than_seconds) != (None, None, None)
        if (len(self.ids) > 0) + self.everything + is_selection != 1:
            raise click.UsageError("name them by id, or with --all, or select by --reason, --sender and --older-than")

    def is_for(self, reason: str, sender: str, since_ms: int) -> bool:
        """Returns whether an entry with this reason and sender, there since then, is selected."""
        seconds = self.older_than_seconds
        return (
            self.reason in (None, reason)
            and self.sender in (None, sender)
            and (seconds is None or since_ms <= (time.time() - seconds) * 1000)
        )


class Age(click.ParamType[float]):
    """The type of a time as people write it: 3d, 12h, 30m, 90s or seconds; the value is in seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses it. Raises click.BadParameter."""
        match = re.fullmatch(r"(\d{1,9})([dhms]?)", str(value))
        if match is None:
            self.fail("expected a number with d, h, m or s behind it, for example 3d", param, ctx)
        return int(match[1]) * UNIT_SECONDS[match[2] or "s"]


def selection(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Adds the options by which a command selects entries."""
    for option in (
        click.option("--older-than", type=Age(), help="Only what is there for so long: 3d, 12h, 30m, or seconds."),
        click.option("--sender", help="Only what this person or agent has sent, by their id."),
        click.option("--reason", help="Only what has this reason."),
    ):
        command = option(command)
    return command


def confirm(what_is_lost: str, *, yes: bool) -> None:
    """Asks for confirmation before something is lost for good. Raises click.Abort; without a terminal --yes is needed."""
    click.echo(what_is_lost, err=True)
    if not yes:
        click.confirm("Drop?", abort=True, err=True)


def shown(text: str) -> str:
    """Returns a text by strangers with its control characters made visible, so that a terminal does not obey them."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def time_of(at_ms: int) -> str:
    """Returns local time with its offset, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(sep=" ", timespec="milliseconds")


def facts(rows: Sequence[tuple[str, object]]) -> None:
    """Shows names and values, one a line."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {shown(str(value))}")
