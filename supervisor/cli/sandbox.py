"""`hashee-agent init`, `console`, `replay`, `dev`, `demo` and `sandbox`: replace this process by `python -m sandbox …`, which nothing here imports."""

import os
import sys

import click

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
RUN_BY_DEFAULT = "relay"
PASSED_ON = frozenset({"sandbox", "demo", "init", "console", "replay", "dev"})
"""Commands whose every option is the sandbox's own, --help too."""


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


@click.command(short_help="Begin an agent of your own, with its test.", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def init(arguments: tuple[str, ...]) -> None:
    """Write a new agent of your own into a folder, with its test. `init --help` shows the templates."""
    _become(["init", *arguments])


@click.command(short_help="Talk to an agent in this terminal, without a server.", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def console(arguments: tuple[str, ...]) -> None:
    """Talk to an agent in one process: no relay, no Redis, no keys. `console --help` shows its options."""
    _become(["console", *arguments])


@click.command(short_help="Play a recorded conversation of the console again.", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def replay(arguments: tuple[str, ...]) -> None:
    """Play what `console --record` wrote against the code as it is now, and say what differs."""
    _become(["replay", *arguments])


@click.command(short_help="Run an agent that you are writing, reloaded on each save.", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dev(arguments: tuple[str, ...]) -> None:
    """Talk to an agent that you are writing through relay, Redis, supervisor and workers; it is reloaded when a file of it changes."""
    _become(["dev", *arguments])


def _become(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, "-P", "-m", "sandbox", *arguments])  # noqa: S606
