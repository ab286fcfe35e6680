"""A group of commands that imports a command when it is used: the keeper must stay small, and a start short."""

from collections.abc import Mapping
from importlib import import_module

import click


class LazyGroup(click.Group):
    """Knows the names of its commands. `places`: name → "module:attribute"."""

    def __init__(self, places: Mapping[str, str], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own, passed on
        self._places = places

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is not a command")
        return command
