"""What a process inherits that the owner's code forks from a worker, as multiprocessing does: none of its signals, and not its event loop."""

import os
import signal
import threading

import trio

from host.forks import Tell, end_this_fork


class Forks:
    """Made once a process."""

    def __init__(self, tell: Tell) -> None:
        """`tell` hears, in the forked process, that it came back into the event loop."""
        self._tell = tell
        self._ours: dict[signal.Signals, object] = {}
        self._masks = threading.local()

    def register(self) -> None:
        """Has this hold for all that is forked from now on, whatever forks it. Nothing takes it back."""
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._begin)

    def hears(self, *numbers: signal.Signals) -> None:
        """Notes that these signals are the worker's to hear from now on: in its forks they do what they do in any process."""
        self._ours = {number: signal.getsignal(number) for number in numbers}

    def _hold(self) -> None:
        """Has signals wait: one that comes right after the fork is to end it, and would be heard as the worker hears it."""
        self._masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, self._ours)

    def _let_go(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.former)

    def _begin(self) -> None:
        """Called in a process that was just forked, in its one thread."""
        for number, handler in self._ours.items():
            if signal.getsignal(number) is handler:  # the owner's code has put no other in its place
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._let_go()
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.add_instrument(_EndsTheFork(self._tell))


class _EndsTheFork(trio.abc.Instrument):
    """Ends this process as soon as the task that has forked it waits for anything."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        end_this_fork(self._tell, None)
