"""`hashee-agent backup …`: saves the whole state of an agent in one file, verifies it, and tries to restore it."""

from collections.abc import Mapping

import click

from supervisor.cli.lazy import LazyGroup

COMMANDS: Mapping[str, str] = {
    "make": "supervisor.cli.backup.make:make",
    "verify": "supervisor.cli.backup.verify:verify",
    "drill": "supervisor.cli.backup.drill:drill",
}
DEFAULT = "make"


class _OrFile(LazyGroup):
    """The group that takes `backup FILE` as `backup make FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in COMMANDS else [DEFAULT, *args])


@click.group(
    cls=_OrFile,
    places=COMMANDS,
    short_help="Save the whole state; look at what was saved.",
    context_settings={"ignore_unknown_options": True},
)
def backup() -> None:
    """Save the agent's whole state in one sealed and signed file, while it runs: hashee-agent backup FILE (docs/disaster.md).

    In it: identity keys, store secret, grants, pins, prekeys, sessions, what waits, dead letters, quarantine and history.
    """
