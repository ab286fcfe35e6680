"""The agent's answers as a simulated person sees them grow: one a conversation, from `stream.start` to its end."""

from collections import Counter
from collections.abc import Callable

import msgspec

from crypto.envelope import Expected
from crypto.streams import StreamReader
from sandbox.device_state import DeviceState
from supervisor.relay.frames import StreamAbort, StreamDelta, StreamStart


class Growing(msgspec.Struct, frozen=True):
    """A streamed answer as it stands now."""

    reader: StreamReader
    text: str


class HeardStreams:
    """Of one device. `growing`: by conversation, what is shown at the moment. `state`: gives the device's keys and ratchets."""

    def __init__(self, state: Callable[[], DeviceState], counts: Counter[str]) -> None:
        self.growing: dict[str, Growing] = {}
        self._state = state
        self._counts = counts

    def hear(self, frame: StreamStart | StreamDelta | StreamAbort) -> None:
        """Show what a frame brings. Raises `Unreadable`."""
        conversation_id = frame.conversation_id
        match frame:
            case StreamStart():
                expected = Expected(conversation_id, frame.sender_id or "")
                reader = self._state().open_stream(frame.encrypted_payload, expected, frame.stream_id)
                self.growing[conversation_id] = Growing(reader, "")
                self._counts["streams"] += 1
            case StreamDelta():
                self._grow(frame)
            case StreamAbort():
                self.growing.pop(conversation_id, None)
                self._counts["streams_aborted"] += 1

    def _grow(self, frame: StreamDelta) -> None:
        growing = self.growing.get(frame.conversation_id)
        if growing is None or growing.reader.stream_id != frame.stream_id:
            return
        expected = Expected(frame.conversation_id, frame.sender_id or "")
        envelope = self._state().verified(frame.encrypted_payload, expected)
        reader, text = growing.reader.read(envelope, seq=frame.seq)
        self.growing[frame.conversation_id] = Growing(reader, growing.text + text)
        self._counts["deltas"] += 1
