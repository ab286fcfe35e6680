"""A reply that was taken to be sent. A value; supervisor/outbound/outbound.py moves it."""

import msgspec

from bus.records.records import Reply, ReplyRecord


class Head(msgspec.Struct, frozen=True):
    """A reply that was taken: the head of its conversation's out-box."""

    entry_id: str
    record: ReplyRecord
    reply: Reply
    client_message_id: str

    def __repr__(self) -> str:
        return f"Head(entry_id={self.entry_id!r}, job_id={self.record.job_id!r}, place={self.record.place!r})"

    @property
    def trace(self) -> str:
        """What it is traced under; the beginning of a stream is not, since the relay acknowledges the stream's end."""
        return "" if self.reply.kind == "stream_start" else self.record.trace
