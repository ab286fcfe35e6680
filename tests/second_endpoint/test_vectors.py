"""The endpoint that was written from the page makes and reads the vectors, byte for byte; and it is nobody else's."""

import ast
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.second_endpoint import groups, streams
from tests.second_endpoint.device import Device, Place
from tests.second_endpoint.encoding import from_base64, pack, to_base64
from tests.second_endpoint.envelope import V1, V1_1, Envelope, Ids, padded, read_envelope
from tests.second_endpoint.files import open_file
from tests.second_endpoint.groups import GroupKey
from tests.second_endpoint.keys import Bundle, Identity, public_of
from tests.second_endpoint.ratchet import Session

pytestmark = pytest.mark.pure

HERE = Path(__file__).parent
OURS = {"crypto", "host", "bus", "workers", "supervisor", "sandbox", "bench", "examples"}
TEXTS = (
    "errors",
    "encoding",
    "keys",
    "envelope",
    "ratchet",
    "groups",
    "streams",
    "files",
    "device",
    "web_socket",
    "end",
    "client",
    "agent",
    "relay",
)


def kept(name: str) -> Any:
    return json.loads((HERE.parent / "vectors" / f"{name}.json").read_text(encoding="utf-8"))


def drawing(pieces: Iterable[str]) -> Callable[[int], bytes]:
    """The pieces of a vector in the place of random bytes."""
    waiting: Iterator[bytes] = iter([bytes.fromhex(piece) for piece in pieces])

    def draw(size: int) -> bytes:
        piece = next(waiting)
        assert len(piece) == size
        return piece

    return draw


def device_of(keys: dict[str, str], now_ms: int) -> Device:
    identity = Identity(bytes.fromhex(keys["x25519_private"]), bytes.fromhex(keys["ed25519_seed"]))
    return Device(keys["owner_id"], keys["device_id"], identity, now_ms=lambda: now_ms)


def test_it_seals_and_opens_all_eight_messages_of_the_transcript() -> None:
    transcript = kept("transcript")
    start, bundle = transcript["start"], transcript["start"]["bundle"]
    sides = {name: device_of(keys, start["started"]) for name, keys in transcript["keys"].items()}
    alice, agent = sides["alice"], sides["agent"]
    agent.prekeys.signed[bundle["signed_prekey_id"]] = bytes.fromhex(bundle["signed_prekey_private"])
    agent.prekeys.one_time[bundle["one_time_prekey_id"]] = bytes.fromhex(bundle["one_time_prekey_private"])
    agent.pins[alice.owner_id] = alice.identity.pair
    alice.random = drawing(start["random"])
    alice.begin(alice.read_bundle(as_published(bundle, agent.identity), agent.owner_id))
    waiting = list(transcript["arrives"])
    for number, message in enumerate(transcript["messages"]):
        sender = sides[message["from"]]
        receiver = agent if sender is alice else alice
        sender.random = drawing(message["random"])
        place = Place(start["conversation_id"], receiver.owner_id)
        sealed = sender.seal(place, message["payload"], message["client_message_id"], [receiver.device_id])
        assert sealed == message["encrypted_payload"], number
        assert read_envelope(sealed).content_id.hex() == message["content_id"]
        assert read_envelope(sealed).ids.replay_id.hex() == message["replay_id"]
        while waiting and waiting[0] <= number:
            arriving = transcript["messages"][waiting.pop(0)]
            frame = {
                "conversation_id": start["conversation_id"],
                "sender_id": sender.owner_id,
                "sender_device_id": sender.device_id,
                "encrypted_payload": arriving["encrypted_payload"],
            }
            assert receiver.open(frame, Place(start["conversation_id"], sender.owner_id)) == arriving["payload"]
    assert not waiting
    assert not any(session.skipped for side in sides.values() for session in sessions_of(side))
    assert agent.prekeys.one_time == {}


def sessions_of(device: Device) -> list[Session]:
    return [session for known in device.sessions.values() for session in known]


def as_published(bundle: dict[str, Any], identity: Identity) -> dict[str, object]:
    def coded(name: str) -> str:
        return to_base64(bytes.fromhex(bundle[name]))

    return {
        "device_id": bundle["device_id"],
        "public_key": to_base64(identity.pair.x25519),
        "signing_public_key": to_base64(identity.pair.ed25519),
        "signed_prekey": {
            "id": bundle["signed_prekey_id"],
            "public_key": coded("signed_prekey"),
            "signature": coded("signature"),
        },
        "one_time_prekey": {"id": bundle["one_time_prekey_id"], "public_key": coded("one_time_prekey")},
    }


def test_a_bundle_with_another_signature_counts_for_nothing() -> None:
    transcript = kept("transcript")
    agent = device_of(transcript["keys"]["agent"], 0)
    entry = as_published(transcript["start"]["bundle"], agent.identity)
    assert Bundle.read(entry, agent.owner_id, None).pair == agent.identity.pair
    with pytest.raises(Exception, match="bad_signature"):
        Bundle.read(entry, "another owner", None)


def test_it_makes_the_whole_envelopes_of_the_worked_example() -> None:
    example, keys = kept("worked_example"), kept("transcript")["keys"]
    agent, alice = device_of(keys["agent"], 0), device_of(keys["alice"], 0)
    told = example["group_key"]
    members = (alice.owner_id, agent.owner_id)
    key = GroupKey(told["group_id"], 1, bytes.fromhex(told["key"]), members)
    ids = Ids(V1, told["conversation_id"], key.group_id, agent.owner_id, agent.device_id, told["client_message_id"])
    recipients = {one.owner_id: one.identity.pair.x25519 for one in (alice, agent)}
    random = drawing([told["content_key_and_nonce"], *told["ephemeral_privates"]])
    sealed = groups.seal_group_key(ids, key, recipients, agent.identity, random)
    assert sealed == told["encrypted_payload"]
    for one in (alice, agent):
        assert groups.open_group_key(read_envelope(sealed), one.owner_id, one.identity) == key
    assert wraps_of(read_envelope(sealed)) == told["wraps"]

    said = example["group_message"]
    random = drawing([said["content_key_and_nonce"], said["salt"]])
    ids = Ids(V1_1, ids.conversation_id, ids.to, ids.sender_id, ids.sender_device, said["client_message_id"])
    sealed = groups.seal_group_message(ids, key, said["payload"], agent.identity, random)
    assert sealed == said["encrypted_payload"]
    assert groups.open_group_message(read_envelope(sealed), (key,)) == said["payload"]
    assert wraps_of(read_envelope(sealed)) == said["wraps"]


def wraps_of(envelope: Envelope) -> list[str]:
    return [pack(wrap).hex() for wrap in envelope.wraps]


def test_it_seals_and_reads_the_delta_of_the_worked_example() -> None:
    told = kept("worked_example")["delta"]
    envelope = read_envelope(told["encrypted_payload"])
    ours = streams.Growing(told["stream_id"], bytes.fromhex(told["key"]), envelope.ids)
    random = drawing([told["content_key_and_nonce"], told["salt"]])
    agent = device_of(kept("transcript")["keys"]["agent"], 0)
    text = told["payload"]["text"]
    assert streams.seal_delta(envelope.ids, ours, text, agent.identity, random) == told["encrypted_payload"]
    growing = streams.begin(
        envelope,
        {"type": "stream", "stream_id": told["stream_id"], "key": to_base64(bytes.fromhex(told["key"]))},
        told["stream_id"],
    )
    assert streams.grow(growing, envelope, told["seq"]).text == told["payload"]["text"]


def test_it_opens_the_file_and_pads_as_the_vectors_say() -> None:
    derivations = kept("derivations")
    told = derivations["file"]
    content = open_file(bytes.fromhex(told["ciphertext"]), told["attachment"], told["conversation_id"])
    assert content == told["content"].encode()
    assert [padded(length) for length, _ in derivations["padded_lengths"]] == [
        size for _, size in derivations["padded_lengths"]
    ]
    assert from_base64(told["attachment"]["key"], 32)
    assert hashlib.sha256(bytes.fromhex(told["ciphertext"])).hexdigest() == told["attachment"]["sha256"]
    assert (
        public_of(bytes.fromhex(derivations["identity"]["x25519_private"])).hex()
        == derivations["identity"]["x25519_public"]
    )


@pytest.mark.parametrize("name", TEXTS)
def test_the_endpoint_imports_nothing_of_ours(name: str) -> None:
    tree = ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module for module in named if module.split(".")[0] != "tests"}
    assert not {module.split(".")[0] for module in foreign} & {*OURS, "msgspec", "trio_websocket"}
    assert {module for module in named - foreign if not module.startswith("tests.second_endpoint")} == set()


def test_every_file_of_the_endpoint_is_looked_at() -> None:
    there = {path.stem for path in HERE.glob("*.py")}
    assert there == {*TEXTS, "__init__", *(name for name in there if name.startswith("test_"))}
