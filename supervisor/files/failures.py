"""A call that failed, as the gate raises it: the reason, a sentence for people, and what it says of another try."""

from bus.files.calls import MAY_SUCCEED_LATER, STATUS, CallFailure, Failed, FailureBody


class CallFailed(Exception):
    """Ends a call. The text says nothing of a file's content, of a ticket or of a token."""

    def __init__(self, failure: CallFailure, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        """Returns the HTTP status of the answer."""
        return STATUS[self.failure]

    @property
    def body(self) -> Failed:
        """Returns the body of the answer."""
        may_try_again = self.failure in MAY_SUCCEED_LATER
        return Failed(FailureBody(self.failure, self.message, may_try_again, self.retry_after_seconds))
