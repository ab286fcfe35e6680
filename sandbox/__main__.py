"""`python -m sandbox relay | say | proxy | demo | init | console`: reads the command line, nothing else. Each command imports what it needs."""

import os
import runpy
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

runpy.run_path(str(Path(__file__).parents[1] / "host" / "entrance.py"), run_name="entrance")

import click

from host.log_stream import leave
from host.reasons import fault_of_full_output

OF_THE_PROGRAM = {"init", "console", "replay", "dev"}
"""Commands that people know as those of hashee-agent, which becomes this."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A local relay with simulated people: first steps and tests without the real platform."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; others are refused.")
@click.option("--port", default=0, show_default=True, help="0: a free one, printed as JSON when it accepts.")
@click.option("--state", "state_file", type=click.Path(path_type=Path), help="Keep everything in this SQLite file.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Also write the JSON line here.")
@click.option("--announce-fd", type=int, help="Also write the JSON line to this descriptor and close it.")
@click.option("--exit-with-parent", "parent_pid", type=int, metavar="PID", help="End when this parent process ends.")
@click.option("--enforce-rate", is_flag=True, help="Refuse an agent's sixth message a second, not only count it.")
@click.option("--ping-seconds", default=30.0, show_default=True, help="Heartbeat; three silent ones are the end.")
@click.option("--stream-seconds", default=300.0, show_default=True, help="How long a stream may last.")
@click.option("--stream-orphan-seconds", default=30.0, show_default=True, help="How long a stream may be silent.")
def relay(
    *,
    host: str,
    port: int,
    state_file: Path | None,
    ready_file: Path | None,
    announce_fd: int | None,
    parent_pid: int | None,
    enforce_rate: bool,
    ping_seconds: float,
    stream_seconds: float,
    stream_orphan_seconds: float,
) -> None:
    """The relay: REST and WebSocket on one loopback port. Prints {"url": …} when it accepts connections."""
    from sandbox.relay.serve import NotLoopback, RelayOptions, run_relay  # noqa: PLC0415 - only for this command

    options = RelayOptions(
        host=host,
        port=port,
        state_file=state_file,
        ready_file=ready_file,
        announce_fd=announce_fd,
        parent_pid=parent_pid,
        enforce_rate=enforce_rate,
        ping_seconds=ping_seconds,
        stream_seconds=stream_seconds,
        stream_orphan_seconds=stream_orphan_seconds,
    )
    try:
        run_relay(options)
    except (NotLoopback, OSError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--url", required=True, help="The sandbox relay's address.")
@click.option("--agent", "agent_id", required=True, help="Whom to talk to.")
def say(url: str, agent_id: str) -> None:
    """A new person says what stands on standard input, and waits for an answer. Ends with 1 where there is none."""
    import trio  # noqa: PLC0415 - only for this command

    from sandbox.say import say_once  # noqa: PLC0415

    if not trio.run(say_once, url, agent_id, sys.stdin.read().strip()):
        raise click.ClickException("the agent has not answered")


@main.command()
@click.option("--target", required=True, metavar="HOST:PORT", help="Where the connections are carried to.")
@click.option("--port", default=0, show_default=True, help="0: a free one, printed as JSON.")
@click.option("--exit-with-parent", "parent_pid", type=int, metavar="PID", help="End when this parent process ends.")
def proxy(*, target: str, port: int, parent_pid: int | None) -> None:
    """A bad network in front of the relay.

    Reads one JSON object a line, {"do": "cut" | "reset" | "stall" | "resume" | "delay" | "throttle" | "refuse" |
    "accept" | "state", "value": NUMBER}, and answers each with one.
    """
    import trio  # noqa: PLC0415 - only for this command

    from host.parent_death import die_with_parent  # noqa: PLC0415
    from sandbox.chaos_proxy import run_proxy  # noqa: PLC0415

    host, separator, target_port = target.rpartition(":")
    if not separator or not target_port.isdigit():
        raise click.BadParameter("HOST:PORT is wanted", param_hint="--target")
    if parent_pid is not None:
        die_with_parent(parent_pid)
    with suppress(KeyboardInterrupt):
        trio.run(run_proxy, host, int(target_port), port)


@main.command()
@click.option("--scripted", is_flag=True, help="Play the scripted conversation, also on a terminal.")
def demo(*, scripted: bool) -> None:
    """Everything on this machine: a chat on a terminal, otherwise a scripted conversation of 20 messages."""
    from sandbox.demo import run_demo  # noqa: PLC0415 - only for this command

    sys.exit(run_demo(scripted=scripted or not (sys.stdin.isatty() and sys.stdout.isatty())))


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--template", default="chat", show_default=True, help="chat, form, group or tools.")
def init(*, directory: Path, template: str) -> None:
    """A new agent of your own in DIRECTORY, with its test and all that it needs to run. Nothing is overwritten."""
    from sandbox.start_a_project import TEMPLATES, AlreadyThere, start_project, what_next  # noqa: PLC0415 - only for this command

    if template not in TEMPLATES:
        raise click.BadParameter(f"one of {', '.join(TEMPLATES)} is wanted", param_hint="--template")
    try:
        files = start_project(directory, template)
    except (AlreadyThere, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(what_next(directory, files, template))


@main.command()
@click.argument("handler", required=False, metavar="[MODULE:AGENT]")
@click.option(
    "--script",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take the lines of this file; with lines `< …` below one it ends with 1 where the agent says something else.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="Write what is said into this file, for `replay`; its head says what is left out of it, and what is not.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Write one JSON object a line; {"kind": "rest"} ends what a line has led to.',
)
@click.option("--person", default="ann", show_default=True, help="Who talks.")
def console(*, handler: str | None, script: Path | None, record: Path | None, as_json: bool, person: str) -> None:
    """Talk to an agent in this process, without a server: agent:agent, HASHEE_HANDLER or the one that is named. `/?` says what it takes."""
    from sandbox.console import ConsoleOptions, run_console  # noqa: PLC0415 - only for this command

    sys.exit(run_console(ConsoleOptions(handler, script=script, record=record, as_json=as_json, person=person)))


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("handler", required=False, metavar="[MODULE:AGENT]")
def replay(*, file: Path, handler: str | None) -> None:
    """Play what `console --record` wrote against the code as it is now; say what differs. Ends with 1 where something does."""
    from sandbox.console import ConsoleOptions, run_console  # noqa: PLC0415 - only for this command

    sys.exit(run_console(ConsoleOptions(handler, script=file)))


@main.command()
@click.argument("handler", required=False, metavar="[MODULE:AGENT]")
def dev(*, handler: str | None) -> None:
    """An agent that you are writing, through everything: a local relay, a private Redis, supervisor and workers, reloaded on each save."""
    from sandbox.console import chosen_handler, load_or_say  # noqa: PLC0415 - only for this command
    from sandbox.demo import run_dev  # noqa: PLC0415

    name = chosen_handler(handler)
    sys.exit(run_dev(name) if (status := load_or_say(name)) == 0 else status)


@main.command(hidden=True)
@click.option("--folder", required=True, type=click.Path(path_type=Path), help="With state/ and keystore.json in it.")
@click.option("--agent-id", required=True, help="Whose they are.")
def drill(*, folder: Path, agent_id: str) -> None:
    """A conversation with an agent whose state was restored (hashee-agent backup drill)."""
    from sandbox.drill import run_drill  # noqa: PLC0415 - only for this command

    sys.exit(run_drill(folder, agent_id))


def run() -> NoReturn:
    """Runs a command; an output that cannot be written is a line and status 74, as with every command of hashee-agent."""
    try:
        main(prog_name="hashee-agent" if {*sys.argv[1:2]} & OF_THE_PROGRAM else "python -m sandbox")
    except (OSError, BaseExceptionGroup) as problem:
        if (fault := fault_of_full_output(problem)) is None:
            raise
        with suppress(OSError):
            click.echo(f"hashee-agent: {fault}", err=True)
        leave(os.EX_IOERR)
    sys.exit(0)


if __name__ == "__main__":
    run()
