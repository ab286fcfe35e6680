"""What is said of the exception that ends a worker."""

import pytest

from workers.process.last_words import LastWords
from workers.process.logs import worker_log

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(("text", "is_told"), [("can't start new thread", True), ("the person's words", False)])
def test_a_thread_that_cannot_be_started_is_told_with_what_helps(text: str, is_told: bool) -> None:
    words = LastWords(worker_log({}, "w", level="error", line_format="json"), is_heard=False)
    crashed = words.of_the_end(RuntimeError(text))
    assert crashed.exception.startswith("RuntimeError")
    assert ("TasksMax=" in crashed.exception) is is_told
    assert "words" not in crashed.exception
