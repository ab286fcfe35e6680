"""Describes where every thread and trio task of a worker that does not answer is: file, line and function, no values.

It runs in another thread while the event loop hangs, so it takes what it can get and never waits.
"""

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

import trio

MOST_TASKS = 500


def dump(root: trio.lowlevel.Task | None) -> str:
    """Returns the stacks of all threads, then of all tasks below `root`."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    blocks = [
        _block(f"thread {names.get(ident, ident)}", traceback.StackSummary.extract(traceback.walk_stack(frame)))
        for ident, frame in sys._current_frames().items()
    ]
    for count, task in enumerate(_tasks(root)):
        if count == MOST_TASKS:
            blocks.append(f"more than {MOST_TASKS} tasks")
            break
        blocks.append(_block(f"task {task.name}", of_task(task)))
    return "\n".join(blocks)


def _block(title: str, stack: traceback.StackSummary) -> str:
    lines = [f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in stack]
    return "\n".join([title, *lines])


def _tasks(root: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        yield task
        for nursery in list(task.child_nurseries):
            waiting.extend(list(nursery.child_tasks))


def of_task(task: trio.lowlevel.Task) -> traceback.StackSummary:
    """Returns where a task is, the innermost frame last."""
    frames: list[tuple[FrameType, int]] = []
    with suppress(TypeError):  # it awaits something that trio does not see into
        frames.extend(task.iter_await_frames())
    return traceback.StackSummary.extract(iter(frames), lookup_lines=False)
