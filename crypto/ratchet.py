"""The Double Ratchet of one session (PROTOCOL §5.4), as published, with the new key pair made on the next send.

A step takes a state and returns another; nothing is committed here, and a receiving step has authenticated
nothing yet: its result counts only once the wrap's and the content's tags fit. Skipped keys are handed out,
to be parked by the session; the session also looks there before it asks for a step.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crypto import msgpack
from crypto.chains import chain_step, root_step
from crypto.errors import Reason, Unreadable, malformed
from crypto.msgpack import Bytes32, Unsigned32
from crypto.primitives import (
    Random,
    agree,
    agreement_public,
    check_agreement_key,
    make_agreement_private,
)

MAX_SKIPPED_PER_STEP: Final = 1_000
"""A header may make us derive at most so many keys, about 2 ms; a phone that was off for a day stays under."""


class Ratchet(msgspec.Struct, frozen=True, gc=False):
    """One session's ratchet. Every key is 32 bytes; the repr shows none.

    `own_private` and `own_public` are the pair last sent with; they are gone once the answer to it came,
    because the next send makes a new one. `send_chain` is None until that send.
    """

    root_key: bytes
    own_private: bytes | None = None
    own_public: bytes | None = None
    their_public: bytes | None = None
    send_chain: bytes | None = None
    send_count: int = 0
    previous_chain_length: int = 0
    receive_chain: bytes | None = None
    receive_count: int = 0

    def __repr__(self) -> str:
        return f"Ratchet(send_count={self.send_count}, receive_count={self.receive_count})"


class Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a ratchet wrap says about itself: the sender's ratchet key and two numbers."""

    ratchet_key: Bytes32
    previous_chain_length: Unsigned32
    number: Unsigned32


class Parked(msgspec.Struct, frozen=True):
    """Message keys of one chain that were stepped over: numbers from `first` on."""

    ratchet_key: bytes
    first: int
    message_keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Parked(first={self.first}, count={len(self.message_keys)})"


class SendStep(msgspec.Struct, frozen=True, gc=False):
    """A sending step: the state after it, the header as it goes on the wire, the message key."""

    ratchet: Ratchet
    header: bytes
    message_key: bytes

    def __repr__(self) -> str:
        return "SendStep()"


class ReceiveStep(msgspec.Struct, frozen=True, gc=False):
    """A receiving step, not yet authenticated: the state after it, the message key, what it stepped over."""

    ratchet: Ratchet
    message_key: bytes
    parked: tuple[Parked, ...] = ()

    def __repr__(self) -> str:
        return "ReceiveStep()"


def initiator_ratchet(shared_secret: bytes, their_signed_prekey: bytes) -> Ratchet:
    """The start of who began the session: the first send makes a fresh pair against SPK_b."""
    return Ratchet(root_key=shared_secret, their_public=their_signed_prekey)


def responder_ratchet(shared_secret: bytes, signed_private: bytes, signed_public: bytes) -> Ratchet:
    """The start of who was asked: root = SK, and the signed prekey as the pair last sent with."""
    return Ratchet(root_key=shared_secret, own_private=signed_private, own_public=signed_public)


def encode_header(header: Header) -> bytes:
    """`msgpack [dh_pub bin32, previous_chain_length, n]`."""
    return msgpack.encode(header)


def decode_header(data: bytes) -> Header:
    """Raises Unreadable `malformed`, also for a ratchet key that §5 "Bytes" refuses."""
    header = _header.read_shortest(data)
    if header is None:
        parts = msgpack.decode(data)
        if type(parts) is not list or len(parts) != 3:
            raise malformed("header: not three elements")
        header = _header.from_fields(parts)
    check_agreement_key(header.ratchet_key)
    return header


def send_step(ratchet: Ratchet, random: Random) -> SendStep:
    """The next message key of the sending chain; a new pair and chain if the last one was answered."""
    if ratchet.send_chain is None or ratchet.own_public is None:
        ratchet = _new_sending_chain(ratchet, random)
    chain, public = ratchet.send_chain, ratchet.own_public
    assert chain is not None  # noqa: S101 - for the type checker; the line above made both
    assert public is not None  # noqa: S101
    message_key, next_chain = chain_step(chain)
    after = Ratchet(
        ratchet.root_key,
        ratchet.own_private,
        public,
        ratchet.their_public,
        next_chain,
        ratchet.send_count + 1,
        ratchet.previous_chain_length,
        ratchet.receive_chain,
        ratchet.receive_count,
    )
    header = msgpack.encode(Header(public, ratchet.previous_chain_length, ratchet.send_count))
    return SendStep(after, header, message_key)


def receive_step(ratchet: Ratchet, header: Header) -> ReceiveStep:
    """The message key for `header`, of the current receiving chain or of a new one.

    Raises Unreadable `too_many_skipped` (before anything is derived), `key_used` for a number that this chain
    has passed, `bad_ciphertext` for a ratchet key that answers no key of ours.
    """
    if header.ratchet_key == ratchet.their_public:
        if ratchet.receive_chain is None:
            raise Unreadable(Reason.BAD_CIPHERTEXT, "the ratchet key is our peer's signed prekey")
        return _step_in_chain(ratchet, ratchet.receive_chain, header)
    return _step_in_new_chain(ratchet, header)


def _new_sending_chain(ratchet: Ratchet, random: Random) -> Ratchet:
    if ratchet.their_public is None:
        raise ValueError("a responder sends only after it has received")
    private = make_agreement_private(random)
    root_key, chain = root_step(ratchet.root_key, agree(private, ratchet.their_public))
    return msgspec.structs.replace(
        ratchet,
        root_key=root_key,
        own_private=private,
        own_public=agreement_public(private),
        send_chain=chain,
        send_count=0,
    )


def _step_in_chain(ratchet: Ratchet, chain: bytes, header: Header) -> ReceiveStep:
    skipped = header.number - ratchet.receive_count
    if skipped < 0:
        raise Unreadable(Reason.KEY_USED, "the message key is gone")
    _check_gap(skipped)
    parked: tuple[Parked, ...] = ()
    if skipped:
        chain, parked = _step_over(chain, header.ratchet_key, ratchet.receive_count, skipped)
    message_key, next_chain = chain_step(chain)
    after = Ratchet(
        ratchet.root_key,
        ratchet.own_private,
        ratchet.own_public,
        ratchet.their_public,
        ratchet.send_chain,
        ratchet.send_count,
        ratchet.previous_chain_length,
        next_chain,
        header.number + 1,
    )
    return ReceiveStep(after, message_key, parked)


def _step_in_new_chain(ratchet: Ratchet, header: Header) -> ReceiveStep:
    old_chain, old_key = ratchet.receive_chain, ratchet.their_public
    skipped_in_old = 0
    if old_chain is not None:
        skipped_in_old = max(0, header.previous_chain_length - ratchet.receive_count)
    _check_gap(skipped_in_old + header.number)
    if ratchet.own_private is None:
        raise Unreadable(Reason.BAD_CIPHERTEXT, "the ratchet key answers no key of ours")
    parked: tuple[Parked, ...] = ()
    if skipped_in_old and old_chain is not None and old_key is not None:
        _, parked = _step_over(old_chain, old_key, ratchet.receive_count, skipped_in_old)
    root_key, chain = root_step(ratchet.root_key, agree(ratchet.own_private, header.ratchet_key))
    if header.number:
        chain, parked_now = _step_over(chain, header.ratchet_key, 0, header.number)
        parked += parked_now
    message_key, next_chain = chain_step(chain)
    after = Ratchet(
        root_key=root_key,
        their_public=header.ratchet_key,
        previous_chain_length=ratchet.send_count,
        receive_chain=next_chain,
        receive_count=header.number + 1,
    )
    return ReceiveStep(after, message_key, parked)


def _check_gap(skipped: int) -> None:
    if skipped > MAX_SKIPPED_PER_STEP:
        raise Unreadable(Reason.TOO_MANY_SKIPPED, f"over {MAX_SKIPPED_PER_STEP} message keys")


def _step_over(chain: bytes, ratchet_key: bytes, first: int, count: int) -> tuple[bytes, tuple[Parked]]:
    message_keys = []
    for _ in range(count):
        message_key, chain = chain_step(chain)
        message_keys.append(message_key)
    return chain, (Parked(ratchet_key, first, tuple(message_keys)),)


_header: Final = msgpack.Typed(Header)
