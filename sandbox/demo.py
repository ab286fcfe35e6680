"""`python -m sandbox demo`, what `make run` does: everything on this machine, one conversation, nothing left behind.

On a terminal a chat, otherwise the scripted conversation, which ends with one line of JSON and an exit code that
says whether every message was answered once and in order.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
from rich.console import Console
from rich.text import Text

from crypto.errors import Unreadable
from sandbox import handler_errors
from sandbox.api import ApiRefused
from sandbox.background import background
from sandbox.chat import ChatScreen
from sandbox.children import ChildFailed, SandboxProcess
from sandbox.dev_commands import DevCommands
from sandbox.dev_people import YOU, company
from sandbox.dev_store import DevStore
from sandbox.people import NO_CONNECTION
from sandbox.script import Play, PlayResult
from sandbox.stage import RunningSandbox, stage

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_CONFIGURATION = 78
CONNECT_SECONDS = 10.0
ECHO = "workers.builtin.echo:agent"


def run_demo(*, scripted: bool) -> int:
    """Plays it and returns the exit code."""
    return _run(partial(Demo, scripted=scripted))


def run_dev(handler: str) -> int:
    """A chat with an agent that is being written, whose changes are taken over; returns the exit code."""
    return _run(partial(Demo, scripted=False, handler=handler))


def _run(demo: Callable[[Path, float], "Demo"]) -> int:
    """Runs it in a folder that is gone afterwards."""
    started = time.monotonic()
    try:
        folder = Path(tempfile.mkdtemp(prefix="hashee-demo-"))
    except OSError as error:
        why = (
            f"no folder for temporary files can be used ({error.strerror}): set TMPDIR to one that this user can write"
        )
        print(f"hashee-agent: {why}", file=sys.stderr)
        return EXIT_CONFIGURATION
    try:
        return trio.run(demo(folder, started).run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Demo:
    """`handler`: of an agent that is being written: it is reloaded when a file of it changes, and more of it is shown."""

    def __init__(self, folder: Path, started: float, *, scripted: bool, handler: str = "") -> None:
        self._handler = handler
        self._folder = folder
        self._started = started
        self._scripted = scripted
        self._console = Console(highlight=False, soft_wrap=True)
        self._failure: str | None = None

    async def run(self) -> int:
        scope = trio.CancelScope()
        async with background() as nursery:
            # Outside of what it cancels: a second signal must be heard while the first one's ending goes on.
            await nursery.start(self._end_on_signal, scope)
            with scope:
                return await self._run(scope)
        if self._failure is not None:
            return self._failed(self._failure)
        return EXIT_INTERRUPTED if self._scripted else os.EX_OK

    async def _run(self, scope: trio.CancelScope) -> int:
        self._say("starting a private Redis, a relay, the supervisor and two workers …")
        settings = {"HASHEE_HANDLER": ECHO} if self._scripted else dict(handler_errors.SETTINGS)
        if self._handler:
            settings |= {"HASHEE_HANDLER": self._handler, "HASHEE_RELOAD": "1"}
        try:
            async with stage(self._folder, settings=settings) as house, background() as nursery:
                for child in (house.agent, house.relay):
                    nursery.start_soon(self._watch, child, scope)
                self._say(f"ready after {self._seconds():.1f} s: an agent with new keys, waiting for messages\n")
                return await (self._play(house) if self._scripted else self._chat(house))
        except trio.TooSlowError:
            return self._failed("the relay did not let the person in")
        except (ChildFailed, ApiRefused, Unreadable, *NO_CONNECTION) as error:
            return self._failed(str(error))

    async def _play(self, house: RunningSandbox) -> int:
        outcome = await Play(house, self._show).play()
        stored = (await house.api.stats()).messages_stored
        self._say("")
        self._explain(house)
        self._say(f"the relay stored {stored} envelopes and saw the text of none\n")
        _print_json(outcome, self._seconds())
        return os.EX_OK if outcome.failure is None else self._failed(outcome.failure)

    async def _chat(self, house: RunningSandbox) -> int:
        with trio.fail_after(CONNECT_SECONDS) as scope:
            async with company(house.relay_url, house.agent_id) as people, background() as nursery:
                you = await people.person(YOU)
                place = await people.alone(you)
                scope.deadline = float("inf")
                if self._handler:
                    self._say(
                        f"{self._handler} runs in two workers; save a file of it, and they are replaced. Its output and errors stand here too."
                    )
                    self._say(
                        f"status {house.http_url}/   /? says what you can do here; /quit, Ctrl-D or Ctrl-C ends everything\n"
                    )
                else:
                    self._explain(house)
                    self._say(
                        "type a line; /quit, Ctrl-D or Ctrl-C ends everything; `/stream some words` shows a streamed echo,\n`/file PATH` sends a file\n"
                    )
                screen = ChatScreen(you, place, self._console)
                show = partial(handler_errors.show_handler_errors, is_author=bool(self._handler), behind=screen.prompt)
                nursery.start_soon(show, house.agent.log_path, self._console)
                store = DevStore(house.agent_id, house.state_dir, os.environ)
                await screen.run(DevCommands(screen, people, store).by_word if self._handler else None)
        self._say("ending …")
        return os.EX_OK

    def _explain(self, house: RunningSandbox) -> None:
        self._say(f"status   {house.http_url}/readyz (and /healthz)")
        self._say(f"metrics  {house.http_url}/metrics")
        self._say(f"relay    {house.relay_url}/sandbox/stats")
        self._say(
            "encrypted end to end (hashee-envelope-v1.2): X3DH handshake, Double Ratchet, a fresh AES-256-GCM key"
        )
        self._say(
            "for each message, an Ed25519 signature; jobs, replies and ratchets in Redis with XChaCha20-Poly1305;"
        )
        self._say("identity keys stay in the supervisor: the relay, Redis and the workers have none")

    def _show(self, speaker: str, hearer: str, text: str) -> None:
        self._console.print(Text.assemble((f"{speaker:>6} → {hearer:<6}", "bold"), text))

    def _say(self, text: str) -> None:
        self._console.print(Text(text))

    def _failed(self, reason: str) -> int:
        sys.stdout.flush()
        print(f"failed: {reason}", file=sys.stderr, flush=True)
        return EXIT_FAILED

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    async def _watch(self, child: SandboxProcess, scope: trio.CancelScope) -> None:
        """A child that ends by itself ends the demo."""
        code = await child.wait()
        self._failure = f"the {child.name} process ended by itself with exit code {code}\n{child.last_lines()}"
        scope.cancel()

    async def _end_on_signal(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """The first signal drains and ends; with the second one the children die at once, with their parent."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if scope.cancel_called:
                    shutil.rmtree(self._folder, ignore_errors=True)
                    os._exit(EXIT_INTERRUPTED)
                scope.cancel()


def _print_json(outcome: PlayResult, seconds: float) -> None:
    score = outcome.score
    print(
        json.dumps(
            {
                "sent": score.sent,
                "answered": score.answered,
                "lost": score.lost,
                "duplicated": score.duplicated,
                "reordered": score.reordered,
                "encrypted": ",".join(outcome.versions),
                "people": outcome.people,
                "streamed": outcome.streamed,
                "reconnects": outcome.reconnects,
                "unreadable": outcome.unreadable,
                "seconds": round(seconds, 1),
            },
            separators=(",", ":"),
        ),
        flush=True,
    )
