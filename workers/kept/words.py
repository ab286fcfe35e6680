"""What the runtime says to people by itself, in words that an owner may replace: `Agent(words=Words(…))`. A value, checked where it is made.

The buttons of an approval are not among them: the person's app labels those, in that person's language (PROTOCOL §4.1).
"""

from typing import Final, Literal

import msgspec

from workers.errors import BadHandler

TOOL: Final = "{tool}"
"""Stands for the tool's name in `may_run` and `not_known`."""

MOST_CHARACTERS: Final = 2000
NAMES_A_TOOL: Final = ("may_run", "not_known")

Unanswerable = Literal["not_open", "not_asked", "other_question"]
"""Why something does not answer a question; the name of the field with the sentence for it."""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """Sentences, in English unless an owner gives others. `apology` and `refusal` are arguments of Agent. Raises BadHandler.

    `may_run` asks on an approval card whether a tool may be run, `counts_for_a_day` stands above its arguments where yes counts for a day; `not_known` says that
    nobody knows whether a tool was done. `not_open`, `not_asked`, `other_question` answer what does not answer a question.
    `busy` is said once by a message that waits for a busy endpoint, None for nothing; `by_limit` and `by_filter` stand behind an answer that ended before its
    time, `no_words` in the place of one. `stopped` is said, or stands behind an answer in brackets, after /stop; `nothing_to_stop` where there is nothing; `forgotten` after /reset.
    """

    may_run: str = "May I run {tool}?"
    counts_for_a_day: str = "Yes also counts for what else you have me do with this tool here within 24 hours."
    not_known: str = "I do not know whether {tool} was done: it was begun, and I have not heard of its end. Please look, before it is done again."
    not_open: str = "This question is no longer open."
    not_asked: str = "This question is for somebody else."
    other_question: str = "This answers another question than the one that was asked. Please look at the card again."
    busy: str | None = "The language model is busy. I answer as soon as it is free."
    by_limit: str = "[The answer ends here: it has reached the model's limit.]"
    by_filter: str = "[The answer ends here: the endpoint's filter has stopped it.]"
    no_words: str = "I have called many tools, and come to no answer."
    stopped: str = "Stopped."
    nothing_to_stop: str = "There is nothing to stop: I am not answering you just now."
    forgotten: str = "I have forgotten what was said here."

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            text = getattr(self, name)
            if text is None and name == "busy":
                continue
            if not isinstance(text, str) or not 1 <= len(text.strip()) <= len(text) <= MOST_CHARACTERS:
                raise BadHandler(f"Words({name}=…) is a text of 1 to {MOST_CHARACTERS} characters")
            if name in NAMES_A_TOOL and TOOL not in text:
                raise BadHandler(f"Words({name}=…) names the tool: write {TOOL} where its name stands")

    def asks_for(self, tool: str) -> str:
        """Returns the question whether a tool may be run."""
        return self.may_run.replace(TOOL, tool)

    def tells_of(self, tool: str) -> str:
        """Returns the sentence that nobody knows whether a tool was done."""
        return self.not_known.replace(TOOL, tool)

    def why(self, name: Unanswerable) -> str:
        """Returns the sentence for what does not answer a question."""
        found: str = getattr(self, name)
        return found
