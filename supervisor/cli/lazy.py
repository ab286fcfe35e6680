"""A group that imports a command only when it is used, since the keeper must stay small and start quickly.

Every command and group has the option --env-file, which is read before anything else of the command runs.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import click

from host.tuning import collect_garbage_rarely
from supervisor.settings.env_files import add_env_file

ENV_FILE = "env_file"


class LazyGroup(click.Group):
    """A group that knows the names of its commands. `places`: name → "module:attribute"."""

    def __init__(self, places: Mapping[str, str], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own, passed on
        self._places = places
        self.params.append(_env_file_option())

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        collect_garbage_rarely()  # all that the command needs is imported
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is not a command")
        if not any(option.name == ENV_FILE for option in command.params):
            command.params.append(_env_file_option())
        return command


def _env_file_option() -> click.Option:
    return click.Option(
        ["--env-file", ENV_FILE],
        type=click.Path(path_type=Path),
        metavar="FILE",
        multiple=True,
        is_eager=True,
        expose_value=False,
        callback=_read_env_files,
        help="Settings as NAME=value lines; the environment is stronger, an earlier file than a later one.",
    )


def _read_env_files(_context: click.Context, _option: click.Parameter, paths: tuple[Path, ...]) -> None:
    for path in paths:
        add_env_file(path, os.environ)
