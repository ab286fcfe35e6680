"""`hashee-agent sandbox` and `demo`: replace this process by `python -m sandbox …`, which nothing here imports."""

import os
import sys

import click

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
RUN_BY_DEFAULT = "relay"


@click.command(short_help="Run a local relay to try things out.", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sandbox(arguments: tuple[str, ...]) -> None:
    """Run a local relay on loopback. `sandbox --help` shows its options, `sandbox proxy` the chaos proxy."""
    named = bool(arguments) and not arguments[0].startswith("-")
    _become([*arguments] if named else [RUN_BY_DEFAULT, *arguments])


@click.command(short_help="Talk to an agent right here, end to end encrypted.", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Start relay, Redis, supervisor and workers on this machine and talk to the agent; nothing is left running."""
    _become(["demo", *arguments])


def _become(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, "-P", "-m", "sandbox", *arguments])  # noqa: S606
