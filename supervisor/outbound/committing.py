"""Has a reply encrypted (supervisor/outbound/sealer.py) and commits it: ratchets move by one commit that also holds the ciphertext (DESIGN, P4).

Ciphertext that was not committed never leaves this file.
"""

from collections.abc import Mapping
from functools import partial

import msgspec

from bus.records.records import SCHEMA_VERSION, OutboxRecord
from bus.steps.outbox import Commit, Outbox
from crypto.prekeys import Bundle
from supervisor.outbound.decisions import NextStep, fetches_bundles
from supervisor.outbound.outgoing import Addressed, CommittedReply, Head, SealedFor
from supervisor.outbound.rate_line import RateLine
from supervisor.outbound.recipients import Recipients, has_same_keys, row_of
from supervisor.outbound.sealer import CannotSeal, EpochRaised, Sealer
from supervisor.outbound.taking import Taking
from supervisor.peers.record_locks import Peer
from supervisor.recovery.time_guard import TimeGuard
from supervisor.relay.payloads import payload_type_of


class Committing:
    """Encrypts and commits the replies of one supervisor."""

    def __init__(
        self,
        recipients: Recipients,
        sealer: Sealer,
        outbox: Outbox,
        *,
        guard: TimeGuard,
        rate_line: RateLine,
        taking: Taking,
    ) -> None:
        self._recipients = recipients
        self._sealer = sealer
        self._outbox = outbox
        self._guard = guard
        self._rate_line = rate_line
        self._taking = taking

    async def commit(self, head: Head, addressed: Addressed) -> CommittedReply | OutboxRecord | None:
        """Encrypts and commits; does both again if a session, the owner's row or the epoch has changed meanwhile.

        Returns what may leave now, or the record of an earlier commit of the same reply, or None if nothing is left to send.
        Raises CannotSeal, OfferFirst, and RestFailed if the devices' bundles are needed and cannot be fetched.
        """
        place = self._rate_line.place()
        fetches = is_again = False
        while True:
            if is_again:  # what was encrypted before is never sent
                addressed = await self._addressed_anew(addressed)
            is_again = True
            peers = await self._sealer.peers(addressed.recipient)
            epoch = self._sealer.epoch
            bundles = await (self._sealer.bundles(addressed) if fetches else self._sealer.missing(addressed, peers))
            if bundles is not None:
                # Fetching them has noted the owner's devices, and has checked them with the keys that were pinned then.
                asked, addressed = addressed, await self._addressed_anew(addressed)
                if not has_same_keys(asked.recipient, addressed.recipient):
                    continue
                peers = self._sealer.now_listed(addressed.recipient, peers)
            attempt = partial(self._seal_and_commit, head, addressed, peers, bundles or {}, epoch=epoch)
            try:
                sealed, commit, step = await self._rate_line.commit(place, attempt)
            except CannotSeal as error:
                if not fetches_bundles(error.reason, has_fetched=bool(bundles) or fetches):
                    raise
                fetches = True
                continue
            except EpochRaised:
                continue
            match step:
                case NextStep.SEND:
                    self._sealer.committed(sealed)
                    self._taking.committed(head.entry_id)
                    return CommittedReply(sealed, commit.stream_id)
                case NextStep.SEAL_AGAIN:
                    continue
                case NextStep.VERIFY_AND_SEAL_AGAIN:
                    await self._guard.look_again()
                case NextStep.SEND_STORED | NextStep.LEAVE | NextStep.WAIT_FOR_RATE:
                    return commit.stored  # the rate is waited for in its line, and does not come here

    async def _addressed_anew(self, addressed: Addressed) -> Addressed:
        """Returns the same with its recipient as Redis has it now. Raises CannotSeal (no_grant)."""
        recipient = await self._recipients.read_again(addressed.recipient)
        if recipient is None:
            raise CannotSeal("no_grant")
        return msgspec.structs.replace(addressed, recipient=recipient)

    async def _seal_and_commit(
        self, head: Head, addressed: Addressed, peers: list[Peer], bundles: Mapping[str, Bundle], *, epoch: int
    ) -> tuple[SealedFor, Commit]:
        async with self._sealer.locked(peers):
            if self._sealer.epoch != epoch:
                raise EpochRaised
            sealed = await self._sealer.seal(addressed, peers, bundles)
            self._taking.commit_begins(head.entry_id)
            commit = await self._outbox.commit(
                owner=row_of(addressed.recipient),
                entry_id=head.entry_id,
                conversation_id=addressed.conversation_id,
                client_message_id=addressed.client_message_id,
                answers=head.answers,
                record=None if head.begins_stream else _record(head, addressed, sealed),
                sessions=sealed.writes,
                epoch=sealed.epoch,
                rate_per_second=self._rate_line.per_second,
                stream_id=head.reply.stream_id,
                trace=head.trace,
            )
            return sealed, commit


def _record(head: Head, addressed: Addressed, sealed: SealedFor) -> OutboxRecord:
    """Returns what stands in the outbox until the relay has acknowledged the reply."""
    reply = head.reply
    return OutboxRecord(
        SCHEMA_VERSION,
        addressed.client_message_id,
        addressed.conversation_id,
        reply.content_type,
        sealed.encrypted_payload,
        reply.stream_id,
        addressed.conversation_type,
        payload_type_of(reply.payload),
        head.record.emitted_ms,
    )
