"""The exceptions that a handler may raise, and those that the worker's API raises at it.

No text of these contains a message or a payload, since they reach logs and tracebacks.
"""

import re
from typing import ClassVar

_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")


class HandlerError(Exception):
    """Base of the exceptions that the worker's API raises at a handler.

    `reason`: why a job that ends by it is a dead letter, in a word. `is_final`: running the handler again does not help.
    """

    reason: ClassVar[str] = "handler_error"
    is_final: ClassVar[bool] = False


class BadHandler(HandlerError):
    """A function that cannot be a message handler, or two for the same payload type."""


class BadReply(HandlerError):
    """A reply that cannot be sent: empty, too long, not JSON, without a type, or a key that was used before."""


class BadCard(HandlerError):
    """A card or an update that cannot be sent; the text names its field and the remedy."""


class ChatClosed(HandlerError):
    """A chat was used after its handler had ended, or outside of the thread that a sync handler was called in."""

    def __init__(self, how: str) -> None:
        super().__init__(f"this chat is closed, {how}")


class WrongLoop(HandlerError):
    """An async handler awaited something of asyncio: handlers run on trio."""

    def __init__(self) -> None:
        super().__init__(
            "async handlers run on trio, where asyncio does not: use trio (trio.sleep, httpx), or write a plain `def` handler, "
            "which runs in a thread of its own, where asyncio.run() works"
        )


class TextTooLong(BadReply):
    """A text over the platform's limit."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"a text has at most {limit} characters, this one has {length}: send it in parts")
        self.length = length
        self.limit = limit


class BadStep(HandlerError):
    """A step of a job with a name that cannot be one, or a result that cannot be kept."""


class JournalFull(HandlerError):
    """What a handler has noted has no room left: 1 MiB for all its steps and all answers of the model."""

    reason = "journal_full"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no room for the result of step {name!r}: all results of a handler's steps together have 1 MiB. "
            "Return less from steps, or keep it elsewhere and return where; of a model ask for fewer or shorter answers"
        )


class OutcomeUnknown(HandlerError):
    """A step that may be done once had begun when its worker died, or Redis went back since its message was taken in: nobody knows whether
    it was done, and it is not done again.

    `name`: the step's. A handler that does not catch it has its message given up at once.
    """

    reason = "outcome_unknown"
    is_final = True

    def __init__(self, name: str) -> None:
        super().__init__(
            f"step {name!r} may be done once, and may have been: its worker died while it ran, or Redis went back since its message came. "
            "Look whether it was done, and tell whom it concerns"
        )
        self.name = name


class BadReminder(HandlerError):
    """A reminder that cannot be set, or whose data is not what its handler asks for."""


class TooManyReminders(HandlerError):
    """A conversation has as many reminders as it may have; this one was not set."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this conversation has {limit} reminders to come, which is the most: give those that replace one another the same "
            "key=, and drop what is not needed with chat.forget_reminder(key)"
        )
        self.limit = limit


class NoAnswer(HandlerError):
    """Nobody answered what a handler asked. `why`: `timeout`, `cancelled` (they wrote /cancel), or `misfit` (three answers did not fit).

    A handler that does not catch it ends, and what only it knows is not kept.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"there is no answer: {why}")
        self.why = why


class ToolDenied(NoAnswer):
    """A tool of the platform was not run. `why`: `user_timeout`, `cancelled` (they wrote /cancel), or another word of the person's app."""

    def __init__(self, why: str) -> None:
        HandlerError.__init__(self, "the tool was not run: the person, or their app, has denied it")
        self.why = why


class ToolTimeout(NoAnswer):
    """A tool of the platform has not answered in time; whether it was run nobody knows."""

    def __init__(self) -> None:
        HandlerError.__init__(self, "the tool has not answered in time: give call_tool a longer timeout=")
        self.why = "timeout"


class TooManyWaits(HandlerError):
    """A handler asks while too many questions are open, or has asked too often."""

    def __init__(self, limit: int, where: str) -> None:
        super().__init__(f"at most {limit} questions {where}: ask for several things with one form")


class WaitsFull(TooManyWaits):
    """All open questions of the agent have reached their bound; nothing of the run was written."""

    reason = "waits_full"

    def __init__(self) -> None:
        HandlerError.__init__(
            self,
            "all open questions of the agent have 64 MiB together, with what their handlers have noted: "
            "ask with a shorter timeout, and let steps return less",
        )


class BadAsk(HandlerError):
    """A question that cannot be asked there; the text says why and what helps."""


class StateBeforeAsk(HandlerError):
    """A handler asks after it has changed the state, which is written with its end: after the answer it runs again on what stands then."""

    def __init__(self) -> None:
        super().__init__("change the state after the last ask: what was changed before it would be lost")


class StateInTool(HandlerError):
    """A tool has changed the state, or forgets: a later run of the message finds its result, does not run it again, and would not have the change."""

    reason = "state_in_tool"
    is_final = True

    def __init__(self) -> None:
        super().__init__(
            "a tool only reads the state, and does not forget: have it change the store at once (store.change), or return what the handler is to do"
        )


class StoreInTool(HandlerError):
    """A tool writes the store with the end of the job, which a later run that finds the tool's result would not do."""

    reason = "store_in_tool"
    is_final = True

    def __init__(self, method: str) -> None:
        super().__init__(f"in a tool use store.change(key, function), which is written at once, not store.{method}")


class Diverged(HandlerError):
    """A handler that goes on with an answer did not ask that question again: its code is another than the one that asked."""

    reason = "diverged"

    def __init__(self) -> None:
        super().__init__(
            "the handler did not come to the question whose answer it was given: keep what it asks as it was until all have answered, or "
            "give the question a key"
        )


class HandlerGone(HandlerError):
    """The handler that asked is no longer there."""

    reason = "handler_gone"

    def __init__(self, name: str) -> None:
        super().__init__(f"the handler {name} has asked something, was answered, and is no longer there: bring it back")


class Suspended(BaseException):
    """The handler waits for an answer, and this run of it is over: let it pass. No `except Exception` sees it."""


class BadState(HandlerError):
    """A conversation's state does not fit the agent's state class, or a value of the store what was asked for; nothing was overwritten."""

    reason = "bad_state"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"the state of this conversation does not fit {name}: {why}. Give the field its former type and the new one another name "
            "(docs/handlers.md says how a state changes), then bring the message back: hashee-agent dead retry"
        )


class BadStored(BadState):
    """A value of the store is not of the type that was asked for."""

    def __init__(self, key: str, why: str) -> None:
        HandlerError.__init__(
            self,
            f"the store's value of {key!r} {why}. Read it as what it is, or take it away with store.set({key!r}, None), "
            "then bring the message back: hashee-agent dead retry",
        )


class StateTooLarge(HandlerError):
    """A state over its limit; what was kept before stays."""

    reason = "state_too_large"

    def __init__(self, name: str, size: int, limit: int) -> None:
        super().__init__(
            f"a state has at most {limit} bytes, this {name} has {size}: keep less in it, or put what grows into a database"
        )
        self.size = size
        self.limit = limit


class StoreLimit(HandlerError):
    """Something that the store does not take; nothing was changed."""

    reason = "store_limit"


class StoreFull(HandlerError):
    """The store has reached its bound; nothing of the run was written."""

    reason = "store_full"

    def __init__(self) -> None:
        super().__init__(
            "the store takes 10,000 keys and 4 MiB in all: take away what is not needed (store.set(key, None)), or keep it in a database"
        )


class StoreAfterWords(HandlerError):
    """A key was set from what was read, in a run that has said something: were it repeated, people would hear what no longer holds."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"store.set({key!r}, …) after store.get of it and after words: set it before the first word, or use store.add or store.change"
        )


class StoreMixed(HandlerError):
    """One run sets a key with its end and changes it at once: one of the two would be lost."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"store.change({key!r}, …) and store.set or store.add of it in one run: do all of it in the function given to store.change"
        )


class HistoryNotKept(HandlerError):
    """What was said was asked for, and the agent does not keep it."""

    def __init__(self) -> None:
        super().__init__(
            "what is said is kept only where a handler asks for it: give one the parameter `history: History`, or write Agent(history=True)"
        )


class LLMError(HandlerError):
    """A language model gave no whole answer, however often it was asked. A handler that does not catch it has its message given up, and
    whoever wrote it is told.
    """

    is_final = True


class LLMBusy(LLMError):
    """The endpoint is busy. `retry_after_seconds`: for how long, if it says so."""

    reason = "llm_busy"

    def __init__(self, retry_after_seconds: float | None = None) -> None:
        super().__init__(
            "the model's endpoint is busy: let messages wait longer (HASHEE_LLM_WAIT_SECONDS), or raise its limits"
        )
        self.retry_after_seconds = retry_after_seconds


class LLMCut(LLMError):
    """The answer broke off, or there was none."""

    reason = "llm_cut"


class LLMUnreachable(LLMError):
    """The endpoint cannot be reached, or fails."""

    reason = "llm_unreachable"


class LLMTooLong(LLMError):
    """The model takes no conversation of this length, also without the older half of what was said before."""

    reason = "llm_too_long"

    def __init__(self) -> None:
        super().__init__(
            "the conversation is longer than the model's context: let it remember less (HASHEE_LLM_HISTORY_TOKENS), or give the model more context"
        )


class LLMNoPictures(LLMError):
    """The model takes no pictures, or not this one."""

    reason = "llm_no_pictures"

    def __init__(self) -> None:
        super().__init__(
            "the model takes no pictures, or not of this type: name one that does (HASHEE_LLM_MODEL), or catch LLMNoPictures and say so"
        )


class LLMMisfit(LLMError):
    """The model's answer is no value of the type that was asked for, also when it was told why."""

    reason = "llm_misfit"

    def __init__(self, kind: str) -> None:
        super().__init__(f"the model's answer is no {kind}, also when it was told why: ask for less, or another model")


class ToolError(HandlerError):
    """A tool raises it to tell the model why a call came to nothing, in words for the model. The model goes on."""


class LLMRefused(LLMError):
    """The endpoint refused the request. `status`: its HTTP status; `code`: its word for why, '' for none."""

    reason = "llm_refused"

    def __init__(self, status: int, code: str = "", remedy: str = "") -> None:
        remedy = remedy or _REMEDIES.get(status, "look at its log")
        super().__init__(f"the model's endpoint answered with HTTP status {status}{code and f' ({code})'}: {remedy}")
        self.status = status
        self.code = code


_REMEDIES = {
    401: "OPENAI_API_KEY is none of its keys",
    402: "its account has no credit",
    403: "OPENAI_API_KEY may not do this",
    404: "it knows no such model or path: look at HASHEE_LLM_MODEL, and at OPENAI_BASE_URL, which mostly ends with /v1",
    429: "its account has no credit",
}


class FileError(HandlerError):
    """A file could not be read or sent. `reason` says why in a word, as docs/messages.md lists them; this class itself is never raised."""


class FilesOff(FileError):
    """This worker has no way to files: no file gate was named, its certificate is refused, or it does not know this worker."""

    reason = "files_off"
    is_final = True


class FileBroken(FileError):
    """What came is not the file that its message speaks of. `why`: `changed` (another content, conversation or key, cut, or with something behind
    it), `size` (another size than was said), `payload` (the message does not say how it is opened).

    Nothing of it was delivered by `save` and `bytes`; what `chunks` and `texts` gave before is a true beginning.
    """

    reason = "file_broken"
    is_final = True

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(f"the file is not what its message says ({why}: {detail}): ask for it to be sent again")
        self.why = why


class FileGone(FileError):
    """The relay has no such file, or no longer."""

    reason = "file_gone"
    is_final = True

    def __init__(self) -> None:
        super().__init__("the relay has no such file, or no longer: ask for it to be sent again")


class FileTooLarge(FileError):
    """A file over a limit; nothing of it was read."""

    reason = "file_too_large"
    is_final = True

    def __init__(self, size: int, limit: int, remedy: str) -> None:
        super().__init__(f"a file of {size} bytes is over the limit of {limit}: {remedy}")
        self.size = size
        self.limit = limit


class FileDailyLimit(FileError):
    """The platform takes no more files of this agent today; nothing of this one was read."""

    reason = "file_daily_limit"
    is_final = True

    def __init__(self, sent: int, size: int, limit: int) -> None:
        super().__init__(
            f"{sent} bytes of files were sent today, and with {size} more it would be over the platform's {limit} a day (UTC): "
            "send less, or tomorrow"
        )


class FileNotText(FileError):
    """A file that is no text was read as one."""

    reason = "file_not_text"
    is_final = True

    def __init__(self, at: int) -> None:
        super().__init__(
            f"the file is no text in UTF-8 (byte {at}): read it with chunks(), bytes() or save(), or say which files you read"
        )
        self.at = at


class FileRefused(FileError):
    """The relay or the file gate does not take it, or does not give it. `why`: the gate's word."""

    reason = "file_refused"
    is_final = True

    def __init__(self, why: str, message: str = "") -> None:
        super().__init__(f"the file was refused ({why}){message and f': {message}'}")
        self.why = why


class FilesUnreachable(FileError):
    """The file gate or the relay could not be reached for a while, or broke off each time. The job comes again as after any failure."""

    reason = "files_unreachable"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the file gate or the relay cannot be used ({why}): look whether `hashee-agent status` shows the gate, and at its log"
        )
        self.why = why


class BadFile(FileError):
    """Something that cannot be sent as a file; the text says why and what helps."""

    reason = "bad_file"
    is_final = True


class SpoolFull(FileError):
    """Sealed files on their way out have no room. The job comes again as after any failure."""

    reason = "spool_full"

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(f"there is no room for a sealed file in {folder}: {why}")


class SpoolUnusable(FileError):
    """The folder of sealed files on their way out cannot be used. The job comes again as after any failure."""

    reason = "spool_unusable"

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(
            f"the folder {folder} for files on their way out cannot be used: {why}. HASHEE_SPOOL_DIR names another"
        )


class FileNotSaved(FileError):
    """A file could not be written where it was to be saved; nothing stands there that was not there before."""

    reason = "file_not_saved"

    def __init__(self, why: str) -> None:
        super().__init__(f"the file cannot be saved: {why}")


class NotSent(Exception):
    """A message from outside was not queued. `reason`: one word, as docs/handlers.md lists them; `full` and `no_agent` may be over in a moment."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Outcome(Exception):
    """Base of the exceptions by which a handler says how its job ends."""


class Retry(Outcome):
    """Raise it to have this job run again after a while: it is run at most 20 times in all.

    It does not count as a failure of the handler: `job.attempt` stays, and the tries after failures are all left.
    """

    def __init__(self, after_seconds: float = 1.0) -> None:
        if not 0 <= after_seconds <= 86_400:
            raise ValueError("Retry(after_seconds=…) takes 0 to 86400 seconds")
        super().__init__(f"retry after {after_seconds} s")
        self.after_seconds = after_seconds


class WaitOutside(Retry):
    """Something outside is busy, and says or is known to be ready in a while: the job comes again, and is not used up by waiting.

    Whoever raises it bounds how long that goes on.
    """


class Fail(Outcome):
    """Raise it to end this job as a dead letter. `reason` is a short code, since it is stored and counted in the clear."""

    def __init__(self, reason: str = "handler_refused") -> None:
        if not _REASON.fullmatch(reason):
            raise ValueError("Fail(reason) takes a code like 'no_such_order' (a-z, 0-9, _), not a sentence")
        super().__init__(reason)
        self.reason = reason


class CannotStart(Exception):
    """Raise it in an agent's lifespan when trying again will not help, such as a missing setting.

    The text is shown to the operator; no worker starts, and the process ends with exit code 78.
    """
