"""A supervisor that does what its plan says: `python stub_supervisor.py PLAN.json HTTP_FD CONTROL_FD REDIS_URL`.

It writes one JSON line per life into `<plan>.lives`, so that a test can find its pid and what it was given. What the plan says
under "second" holds for every life but the first. With "newer" it is of a release that says more than this one knows, first and in between.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import trio

from bus.control.messages import ControlAnswer
from supervisor.control.keeper_link import KeeperLink, open_keeper_link


async def live(plan: dict[str, object], link: KeeperLink) -> int:
    if "exit" in plan:
        return int(str(plan["exit"]))
    if plan.get("never_ready"):
        await link.report("waiting", "for what never comes")
        await trio.sleep_forever()
    await link.ready("stub")
    await link.report("connected")
    if plan.get("half_a_line"):
        await link.report("pulse", "well")
        os.write(int(sys.argv[3]), b'{"type":"sta')
        await trio.sleep_forever()
    if "exit_after_ready" in plan:
        return int(str(plan["exit_after_ready"]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note_signals, plan, link)
        nursery.start_soon(answer_questions, plan, link)
        await link.wait_for_drain()
        write(plan, {"told_to_drain": os.getpid()})
        if plan.get("ignore_drain"):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    write(plan, {"drained": os.getpid(), "retired": link.retired})
    return 0


async def note_signals(plan: dict[str, object], link: KeeperLink) -> None:
    while True:
        write(plan, {"signal": (await link.next_signal()).name})


async def answer_questions(plan: dict[str, object], link: KeeperLink) -> None:
    while True:
        question = await link.next_question()
        write(plan, {"asked": question.request.command})
        if question.request.command == "die":
            os._exit(3)
        if question.request.command == "status":
            await link.answer(question.number, ControlAnswer(ok=True, result=msgspec.Raw(b'{"pid":%d}' % os.getpid())))


def write(plan: dict[str, object], line: dict[str, object]) -> None:
    with Path(str(plan["lives"])).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def leave_orphan(plan: dict[str, object]) -> None:
    """A grandchild whose parent ends before it: someone else has to reap it."""
    shown = subprocess.run(
        ["/bin/sh", "-c", "sleep 0.3 >&2 & echo $!"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    write(plan, {"orphan": shown.stdout.strip()})


async def main(plan: dict[str, object]) -> int:
    http_socket, control = socket.socket(fileno=int(sys.argv[2])), socket.socket(fileno=int(sys.argv[3]))
    redis_url = sys.argv[4] or None
    write(plan, {"pid": os.getpid(), "redis_url": redis_url, "port": http_socket.getsockname()[1]})
    if "orphan" in plan:
        leave_orphan(plan)
    if plan.get("newer"):
        speak_of_tomorrow(control)
    async with open_keeper_link(control, http_socket, redis_url) as link:
        return await live(plan, link)


def speak_of_tomorrow(control: socket.socket) -> None:
    """What a later release may say: another message, a known one in another shape, a line of 100 MB, and one that was damaged."""
    control.sendall(b'{"type":"of_tomorrow","x":1}\n' * 3)
    control.sendall(b'{"type":"state","state":["ready"],"detail":{}}\n')
    for _ in range(100):
        control.sendall(b"x" * 1_000_000)
    control.sendall(b"\n\xff\xfe\n")
    control.sendall(b'{"type":"state","state":"thinking","detail":"a state of tomorrow","further":[1]}\n')


def plan_of_this_life() -> dict[str, object]:
    plan: dict[str, object] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    second = plan.pop("second", {})
    assert isinstance(second, dict)
    return {**plan, **second} if Path(str(plan["lives"])).exists() else plan


if __name__ == "__main__":
    sys.exit(trio.run(main, plan_of_this_life()))
