"""A ticket says where an announced upload goes, and that this agent's gate was told so by the relay: the gate itself remembers nothing.

The MAC's key comes from the agent's token, which no worker has: a worker cannot have the gate send the token, or anything, to a place of its
own choice. A ticket is good for as long as the token is; how long the upload is, the relay says.
"""

import base64
import binascii
import hmac

import msgspec

from bus.files.calls import MAX_TICKET_CHARACTERS, CallFailure
from supervisor.files.failures import CallFailed
from supervisor.settings.secrets import Secret

_KEY_LABEL = b"hashee-files-ticket-v1"
_MAC_BYTES = 32


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """An announced upload. `url`: where its bytes go, as the relay said it."""

    upload_id: str
    size: int
    url: str


class Tickets:
    """Makes tickets, and opens those that it, or another gate of this agent, has made."""

    def __init__(self, token: Secret[str]) -> None:
        self._key = hmac.digest(token.reveal().encode(), _KEY_LABEL, "sha256")

    def __repr__(self) -> str:
        return "Tickets(…)"

    def make(self, ticket: Ticket) -> str:
        """Returns the ticket as a header's value. Raises CallFailed `bad_upload_url` for an address too long to be one."""
        packed = msgspec.msgpack.encode(ticket)
        text = base64.urlsafe_b64encode(self._mac(packed) + packed).decode()
        if len(text) > MAX_TICKET_CHARACTERS:
            raise CallFailed(CallFailure.BAD_UPLOAD_URL, "the relay's upload_url is too long")
        return text

    def open(self, text: str, upload_id: str) -> Ticket:
        """Returns what a ticket says of this upload. Raises CallFailed `bad_ticket`."""
        try:
            made = base64.b64decode(text, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            made = b""
        mac, packed = made[:_MAC_BYTES], made[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(packed)):
            raise CallFailed(CallFailure.BAD_TICKET, "no ticket of this agent's file gate; announce the upload anew")
        ticket = msgspec.msgpack.decode(packed, type=Ticket)
        if ticket.upload_id != upload_id:
            raise CallFailed(CallFailure.BAD_TICKET, "a ticket of another upload")
        return ticket

    def _mac(self, packed: bytes) -> bytes:
        return hmac.digest(self._key, packed, "sha256")
