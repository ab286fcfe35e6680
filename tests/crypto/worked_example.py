"""Makes tests/vectors/worked_example.json: every value between the keys and the wire, as docs/protocol-crypto.md §9 shows them.

`python -m tests.crypto.worked_example` writes the file, `--page` prints the lines of the page. The first message of the transcript,
taken apart; a group's key, a message under it, and a delta of a stream, each with its inputs and its whole envelope.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from crypto import msgpack, strict_base64
from crypto.chains import chain_step, root_step
from crypto.content import encode_payload, pad
from crypto.envelope import V1, V1_1, V1_2, Envelope, read_envelope
from crypto.groups import GroupKey, GroupKeys, seal_group_key, seal_group_message
from crypto.handshake import associated_data, session_id, shared_secret
from crypto.identity import IdentityKeys, LocalDevice
from crypto.primitives import agree, agreement_public, hkdf_sha256
from crypto.streams import StreamKey, seal_delta
from crypto.wraps import RatchetWrap
from tests.crypto.known_answers import AGENT, ALICE, CONVERSATION, GROUP, NOW_MS, VECTORS, Recorded, transcript

WORKED_EXAMPLE = VECTORS / "worked_example.json"
GROUP_CONVERSATION = "44444444-0000-4000-8000-000000000000"
STREAM_ID = "01J00000000000000000000099"

Values = dict[str, Any]


def worked_example() -> Values:
    """All four parts; binary as hex, envelopes as they go on the wire."""
    kept = transcript()
    random = Recorded("worked example")
    agent = _identity(kept["keys"]["agent"])
    device = LocalDevice(AGENT, AGENT, agent)
    recipients = {ALICE: _identity(kept["keys"]["alice"]).public.agreement_key, AGENT: agent.public.agreement_key}
    key = GroupKey(GROUP, 1, random(32), (ALICE, AGENT))
    return {
        "message": _message(kept),
        "group_key": _group_key(device, key, recipients, random),
        "group_message": _group_message(device, key, random),
        "delta": _delta(device, random),
    }


def _message(kept: Values) -> Values:
    """From alice's keys to the first message's bytes, in the order in which they are computed."""
    keys, start, message = kept["keys"], kept["start"], kept["messages"][0]
    alice, agent = _identity(keys["alice"]), _identity(keys["agent"])
    bundle = {name: bytes.fromhex(value) for name, value in start["bundle"].items() if _is_hex_key(name)}
    ephemeral = bytes.fromhex(start["random"][0])
    content, ratchet_private, salt = (bytes.fromhex(piece) for piece in message["random"])
    alice_private = bytes.fromhex(keys["alice"]["x25519_private"])
    agreements = {
        "dh1": agree(alice_private, bundle["signed_prekey"]),
        "dh2": agree(ephemeral, agent.public.agreement_key),
        "dh3": agree(ephemeral, bundle["signed_prekey"]),
        "dh4": agree(ephemeral, bundle["one_time_prekey"]),
    }
    ad = associated_data(alice.public, agent.public)
    secret = shared_secret(b"".join(agreements.values()))
    shared = agree(ratchet_private, bundle["signed_prekey"])
    root, chain = root_step(secret, shared)
    message_key, next_chain = chain_step(chain)
    envelope = read_envelope(message["encrypted_payload"], allow_v1=False)
    (wrap,) = envelope.wraps
    assert isinstance(wrap, RatchetWrap)
    assert wrap.session == session_id(ad, agreement_public(ephemeral), NOW_MS)
    return _hex(
        alice_x25519_private=alice_private,
        alice_x25519_public=alice.public.agreement_key,
        alice_ed25519_seed=bytes.fromhex(keys["alice"]["ed25519_seed"]),
        alice_ed25519_public=alice.public.signing_key,
        agent_x25519_private=bytes.fromhex(keys["agent"]["x25519_private"]),
        agent_x25519_public=agent.public.agreement_key,
        agent_ed25519_seed=bytes.fromhex(keys["agent"]["ed25519_seed"]),
        agent_ed25519_public=agent.public.signing_key,
        signed_prekey_private=bundle["signed_prekey_private"],
        signed_prekey=bundle["signed_prekey"],
        signed_prekey_signed_bytes=b"hashee-spk-v1\x00"
        + msgpack.encode([AGENT, AGENT, agent.public.agreement_key, 7, bundle["signed_prekey"]]),
        signed_prekey_signature=bundle["signature"],
        one_time_prekey_private=bundle["one_time_prekey_private"],
        one_time_prekey=bundle["one_time_prekey"],
        ephemeral_private=ephemeral,
        ephemeral_key=agreement_public(ephemeral),
        **agreements,
        shared_secret=secret,
        associated_data=ad,
        started=NOW_MS,
        session=wrap.session,
        ratchet_private=ratchet_private,
        ratchet_public=agreement_public(ratchet_private),
        root_step_dh=shared,
        root_after=root,
        chain=chain,
        message_key=message_key,
        chain_after=next_chain,
        header=wrap.header,
        payload=message["payload"],
        plaintext=pad(encode_payload(message["payload"])),
        content_key=content[:32],
        nonce=content[32:],
        aad=envelope.aad,
        ciphertext=envelope.ciphertext,
        content_id=envelope.content_id,
        salt=salt,
        wrap_key_and_nonce=hkdf_sha256(message_key, salt, b"hashee-ratchet-message-v1", 44),
        wrapped_key=wrap.wrapped_key,
        handshake=msgpack.encode(wrap.handshake),
        wrap=msgpack.encode(wrap),
        body=envelope.body,
        signature=envelope.signature,
        replay_id=envelope.replay_id,
        encrypted_payload=message["encrypted_payload"],
    )


def _group_key(device: LocalDevice, key: GroupKey, recipients: dict[str, bytes], random: Recorded) -> Values:
    random.drain()
    sealed = seal_group_key(
        device,
        key,
        conversation_id=GROUP_CONVERSATION,
        client_message_id="01J00000000000000000000100",
        recipients=recipients,
        random=random,
    )
    content, *ephemerals = random.drain()
    return {
        "v": V1,
        "conversation_id": GROUP_CONVERSATION,
        "group_id": GROUP,
        "key": key.key.hex(),
        "content_key_and_nonce": content,
        "ephemeral_privates": ephemerals,
        "payload": {
            "type": "system",
            "event": {
                "kind": "group_key",
                "group_id": GROUP,
                "key_version": 1,
                "key": strict_base64.encode(key.key),
                "members": [ALICE, AGENT],
            },
        },
        **_whole(sealed, allow_v1=True),
    }


def _group_message(device: LocalDevice, key: GroupKey, random: Recorded) -> Values:
    payload: dict[str, object] = {"type": "text", "text": "to everybody"}
    sealed = seal_group_message(
        device,
        GroupKeys(GROUP, (key,)),
        conversation_id=GROUP_CONVERSATION,
        client_message_id="01J00000000000000000000101",
        payload=payload,
        random=random,
    )
    content, salt = random.drain()
    return {
        "v": V1_1,
        "key_version": 1,
        "content_key_and_nonce": content,
        "salt": salt,
        "payload": payload,
        **_whole(sealed, allow_v1=False),
    }


def _delta(device: LocalDevice, random: Recorded) -> Values:
    key = StreamKey.generate(random)
    random.drain()
    sealed = seal_delta(
        device,
        key,
        to=ALICE,
        conversation_id=CONVERSATION,
        client_message_id="01J00000000000000000000102",
        stream_id=STREAM_ID,
        seq=0,
        text="a first piece",
        random=random,
    )
    content, salt = random.drain()
    return {
        "v": V1_2,
        "stream_id": STREAM_ID,
        "seq": 0,
        "key": key.value.hex(),
        "content_key_and_nonce": content,
        "salt": salt,
        "payload": {"type": "delta", "text": "a first piece"},
        **_whole(sealed, allow_v1=False),
    }


def _whole(encrypted_payload: str, *, allow_v1: bool) -> Values:
    envelope: Envelope = read_envelope(encrypted_payload, allow_v1=allow_v1)
    return {
        "client_message_id": envelope.client_message_id,
        "content_id": envelope.content_id.hex(),
        "wraps": [msgpack.encode(wrap).hex() for wrap in envelope.wraps],
        "encrypted_payload": encrypted_payload,
    }


def _identity(keys: Values) -> IdentityKeys:
    return IdentityKeys.from_private(bytes.fromhex(keys["x25519_private"]), bytes.fromhex(keys["ed25519_seed"]))


def _is_hex_key(name: str) -> bool:
    return name.startswith(("signed_prekey", "one_time_prekey", "signature")) and not name.endswith("_id")


def _hex(**values: Any) -> Values:
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()}


def page_lines(values: Values) -> str:
    """A part as the page shows it: one value a line, texts quoted, structures as JSON."""
    width = max(len(name) for name in values)
    return "\n".join(f"    {name:{width}}  {_shown(name, value)}" for name, value in values.items())


def _shown(name: str, value: object) -> str:
    is_bare = isinstance(value, str) and (name == "encrypted_payload" or _is_hex(value))
    return str(value) if is_bare else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and len(text) >= 16 and not set(text) - set("0123456789abcdef")


def main() -> None:
    """Write the file, or print the page's lines."""
    made = worked_example()
    if "--page" in sys.argv:
        for name, values in made.items():
            print(f"{name}\n\n{page_lines(values)}\n")
        return
    WORKED_EXAMPLE.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
