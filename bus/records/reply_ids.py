"""The ids under which replies are sent: the same for every run of a job, made of its thread and place (DESIGN rule 10). Pure."""

import hmac

from bus.records import ulid


def reply_id(identifier_key: bytes, job_id: str, place: str) -> bytes:
    """Returns HMAC(id key, job id ‖ place), 32 bytes: the same for every run of the job."""
    return hmac.digest(identifier_key, f"{job_id}\x00{place}".encode(), "sha256")


def reply_message_id(reply: bytes, inbound_ms: int) -> str:
    """Returns a reply's client_message_id: the inbound message's time, and the first 10 bytes of the reply id as randomness."""
    return ulid.make(inbound_ms, reply[: ulid.RANDOM_BYTES])
