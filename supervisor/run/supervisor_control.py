"""What a supervisor answers to the requests of the control socket, over its keeper's line or on a socket of its own."""

import structlog
import trio

from bus.control.messages import ControlAnswer, Request
from supervisor.control.answers import Answerer, answer_despite_defects, raw
from supervisor.control.control_socket import ControlTaken, control_path, listen_control, serve_control
from supervisor.control.keeper_link import KeeperLink, NumberedRequest
from supervisor.settings.supervisor import SupervisorSettings

log = structlog.get_logger()


class SupervisorControl:
    """`commands`: what is known, by name."""

    def __init__(self, commands: dict[str, Answerer]) -> None:
        self._commands = commands

    async def answer(self, request: Request) -> ControlAnswer:
        command = self._commands.get(request.command)
        if command is None:
            return ControlAnswer(ok=False, error=f"no such command here: {', '.join(sorted(self._commands))}")
        return await command(request)

    async def answer_keeper(self, keeper: KeeperLink) -> None:
        """Until cancelled; a slow answer holds up no other."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._answer_question, keeper, await keeper.next_question())

    async def _answer_question(self, keeper: KeeperLink, question: NumberedRequest) -> None:
        await keeper.answer(question.number, await answer_despite_defects(self.answer, question.request))

    async def serve_alone(self, settings: SupervisorSettings) -> None:
        """On a socket of its own, for a supervisor without a keeper; `status` then has no keeper in it."""
        try:
            settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener = listen_control(control_path(settings.state_dir, settings.runtime_dir))
        except ControlTaken:
            log.warning("control: another supervisor serves the socket of this state directory; this one has none")
            return
        except OSError as problem:
            log.warning("control: no socket", reason=problem.strerror)
            return
        with listener:
            await serve_control(listener, self._answer_alone)

    async def _answer_alone(self, request: Request) -> ControlAnswer:
        answer = await self.answer(request)
        if request.command != "status":
            return answer
        known = answer.result if answer.ok else None
        return ControlAnswer(ok=True, result=raw({"keeper": None, "supervisor": known, "problem": answer.error}))
