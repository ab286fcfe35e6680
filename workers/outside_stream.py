"""A text from outside that grows: merges what is written into pieces, which a thread shows, and keeps the whole.

Pieces may be lost, the whole text may not: it is sent when it is at its end.
"""

import threading
import time
from collections.abc import Callable

from workers.errors import NotSent
from workers.talk.payloads import TEXT_LIMIT_CHARACTERS
from workers.talk.stream import DELTA_MERGE_SECONDS, STREAM_LIMIT_SECONDS


class GrowingText:
    """One text. `show` is called in a thread, with number and text of each piece; returns whether the next one may be shown."""

    def __init__(self, show: Callable[[int, str], bool]) -> None:
        self._show = show
        self._parts: list[str] = []
        self._length = 0
        self._gathered = ""
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def is_begun(self) -> bool:
        """Whether something was written."""
        return self._length > 0

    @property
    def is_shown(self) -> bool:
        """Whether people see it grow, or have."""
        return self._thread is not None

    @property
    def whole(self) -> str:
        """Returns the text so far."""
        return "".join(self._parts)

    def add(self, text: str) -> None:
        """Appends to the text. Raises NotSent if the whole is too long; what was written before then stays."""
        if self._length + len(text) > TEXT_LIMIT_CHARACTERS:
            raise NotSent("text_too_long", f"a text has at most {TEXT_LIMIT_CHARACTERS} characters: send it in parts")
        with self._changed:
            self._length += len(text)
            self._parts.append(text)
            self._gathered += text
            self._changed.notify()

    def show(self) -> None:
        """Has it shown from now on, from its beginning."""
        self._thread = threading.Thread(target=self._run, name="growing text", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the showing; when it returns, `show` is called no more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        ends, number, goes_on = time.monotonic() + STREAM_LIMIT_SECONDS, 0, True
        while goes_on and time.monotonic() < ends:
            with self._changed:
                self._changed.wait_for(lambda: self._gathered or self._is_closed)
                self._changed.wait_for(lambda: self._is_closed, DELTA_MERGE_SECONDS)
                text, self._gathered = self._gathered, ""
                if self._is_closed:
                    return
            goes_on = self._show(number, text)
            number += 1
