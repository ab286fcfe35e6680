"""Two devices in one session, for the crypto benchmark: what is measured is the core, not this."""

from __future__ import annotations

import os
from dataclasses import dataclass

from crypto.envelope import Expected, check_recipient, open_ratchet, parse_envelope, seal_ratchet, verify_signature
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import Bundle, Prekeys, make_signed_prekey
from crypto.records import EMPTY_RECORD, DeviceRecord
from crypto.sessions import start_session

CONVERSATION = "0b5f1a52-8a3c-4a3e-9a33-3f1d2f4f9a01"
NOW_MS = 1_750_000_000_000


@dataclass
class Pair:
    """Alice and the agent, and what each keeps of the other."""

    alice: LocalDevice
    agent: LocalDevice
    alice_record: DeviceRecord
    agent_record: DeviceRecord
    alice_prekeys: Prekeys
    agent_prekeys: Prekeys
    now_ms: int = NOW_MS
    sent: int = 0

    @classmethod
    def talking(cls) -> Pair:
        """A pair whose session has been answered both ways."""
        alice = LocalDevice("11111111-0000-4000-8000-000000000000", "alice-1", IdentityKeys.generate(os.urandom))
        agent_id = "22222222-0000-4000-8000-000000000000"
        agent = LocalDevice(agent_id, agent_id, IdentityKeys.generate(os.urandom))
        signed = make_signed_prekey(agent, 1, NOW_MS, os.urandom)
        bundle = Bundle(agent_id, agent_id, agent.identity.public, 1, signed.public, signed.signature)
        record = start_session(EMPTY_RECORD, alice, bundle, epoch=0, now_ms=NOW_MS, random=os.urandom)
        pair = cls(alice, agent, record, EMPTY_RECORD, Prekeys(), Prekeys({1: signed}))
        for _ in range(4):
            pair.agent_reads(pair.alice_says("hello"))
            pair.swap()
        pair.agent_reads(pair.alice_says("hello"))
        return pair

    def alice_says(self, words: str) -> str:
        self.sent += 1
        sealed = seal_ratchet(
            self.alice,
            to=self.agent.owner_id,
            conversation_id=CONVERSATION,
            client_message_id=f"01J0000000{self.sent:016d}",
            payload={"type": "text", "text": words},
            records={self.agent.device_id: self.alice_record},
            epoch=0,
            now_ms=self.now_ms,
            random=os.urandom,
        )
        self.alice_record = sealed.records[self.agent.device_id]
        return sealed.encrypted_payload

    def agent_reads(self, encrypted_payload: str) -> dict[str, object]:
        expected = Expected(CONVERSATION, self.alice.owner_id, self.alice.device_id)
        envelope = parse_envelope(encrypted_payload, expected)
        check_recipient(envelope, self.agent.owner_id)
        verify_signature(envelope, self.alice.identity.public)
        opened = open_ratchet(
            envelope,
            self.agent,
            self.alice.identity.public,
            self.agent_record,
            self.agent_prekeys,
            epoch=0,
            now_ms=self.now_ms,
        )
        self.agent_record = opened.record
        return opened.payload

    def swap(self) -> None:
        """The other one speaks next."""
        self.alice, self.agent = self.agent, self.alice
        self.alice_record, self.agent_record = self.agent_record, self.alice_record
        self.alice_prekeys, self.agent_prekeys = self.agent_prekeys, self.alice_prekeys
