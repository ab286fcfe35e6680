"""Files, sealed in chunks (crypto §8)."""

import hashlib

from tests.second_endpoint.encoding import Random, from_base64, pack, to_base64
from tests.second_endpoint.errors import Unreadable
from tests.second_endpoint.keys import seal, unseal

CHUNK = 1_048_576
TAG = 16

Attachment = dict[str, object]


def seal_file(content: bytes, conversation_id: str, file_id: str, random: Random) -> tuple[bytes, Attachment]:
    """The ciphertext, and what `attachments` says of it besides the attachment_id."""
    key, prefix = random(32), random(7)
    aad = pack([conversation_id, file_id, "hashee-file-v1"])
    pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)] or [b""]
    sealed = b"".join(
        seal(key + _nonce(prefix, number, is_last=number == len(pieces) - 1), piece, aad)
        for number, piece in enumerate(pieces)
    )
    told: Attachment = {
        "file_id": file_id,
        "key": to_base64(key),
        "nonce_prefix": to_base64(prefix),
        "size": len(content),
        "sha256": hashlib.sha256(sealed).hexdigest(),
    }
    return sealed, told


def open_file(sealed: bytes, attachment: Attachment, conversation_id: str) -> bytes:
    """The content. Raises Unreadable `bad_ciphertext`."""
    key, prefix = from_base64(attachment["key"], 32), from_base64(attachment["nonce_prefix"], 7)
    aad = pack([conversation_id, attachment["file_id"], "hashee-file-v1"])
    pieces = [sealed[at : at + CHUNK + TAG] for at in range(0, len(sealed), CHUNK + TAG)] or [b""]
    content = b"".join(
        unseal(key + _nonce(prefix, number, is_last=number == len(pieces) - 1), piece, aad)
        for number, piece in enumerate(pieces)
    )
    if hashlib.sha256(sealed).hexdigest() != attachment["sha256"] or len(content) != attachment["size"]:
        raise Unreadable("bad_ciphertext", "another hash or size")
    return content


def _nonce(prefix: bytes, number: int, *, is_last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([is_last])
