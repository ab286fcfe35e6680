"""How a caller proves to the file gate that it is one of this agent's workers, and how the gate checks it.

The key comes from the bus key by HKDF, so that the gate, which has this one, can open nothing that the bus key opens. A proof is for one
call: HMAC over its method, target, time, nonce and body length, and over what else of it must not be exchanged. It is good for
`CLOCKS_DIFFER_SECONDS`, and once.
"""

import hmac
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus.files.calls import CallFailure

KEY_BYTES: Final = 32
_KEY_LABEL: Final = b"hashee-files-gate-v1"
_CALL_LABEL: Final = "hashee-files-call-v1"

CLOCKS_DIFFER_SECONDS: Final = 60.0
"""By how much the clocks of caller and gate may differ, and how old a call may be."""

MOST_NONCES: Final = 65_536
"""How many nonces are remembered: over 500 calls a second for as long as a proof is good, at some 200 bytes each. More are refused."""

_PROOF = re.compile(r"([0-9]{1,15}) ([0-9a-f]{32}) ([0-9a-f]{64})")


@dataclass(frozen=True)
class Call:
    """What a proof covers. `target`: path and query as they stand in the request line. `content_length`: 0 without a body.

    `bound`: the SHA-256 (hex) of a JSON body; the ticket of `put`; the Range header of `get`, or nothing.
    """

    method: str
    target: str
    content_length: int
    bound: str = ""


class FilesKey:
    """The key of the proofs; its repr shows nothing of it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of the file gate has {KEY_BYTES} bytes, not {len(key)}")
        self._key = bytes(key)

    def __repr__(self) -> str:
        return "FilesKey(…)"

    @classmethod
    def of_bus_key(cls, bus_key: bytes) -> Self:
        """Derives it from the 32-byte bus key."""
        return cls(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_KEY_LABEL).derive(bus_key))

    def export(self) -> bytes:
        """Returns the raw 32 bytes, for the file or setting that hands it to a gate."""
        return self._key

    def prove(self, call: Call, *, time_ms: int, nonce: str) -> str:
        """Returns the proof header of a call. `nonce`: 32 lower-case hex digits, fresh for each call and each repeat of one."""
        return f"{time_ms} {nonce} {self._mac(call, str(time_ms), nonce)}"

    def is_proof(self, call: Call, time_ms: str, nonce: str, mac: str) -> bool:
        """Whether the MAC is that of this call at this time under this nonce; compared in constant time."""
        return hmac.compare_digest(self._mac(call, time_ms, nonce), mac)

    def _mac(self, call: Call, time_ms: str, nonce: str) -> str:
        parts = (_CALL_LABEL, call.method, call.target, time_ms, nonce, str(call.content_length), call.bound)
        return hmac.digest(self._key, "\n".join(parts).encode(), "sha256").hex()


@dataclass(frozen=True)
class Unproven:
    """Why a proof does not count."""

    failure: CallFailure
    message: str


class ProofChecker:
    """Checks proofs, each of which counts once. Holds the nonces of those that still would."""

    def __init__(self, most_nonces: int = MOST_NONCES) -> None:
        self._most_nonces = most_nonces
        self._seen: OrderedDict[str, float] = OrderedDict()

    def check(self, key: FilesKey, header: str, call: Call, now_seconds: float) -> Unproven | None:
        """Returns why a call's proof does not count, None if it does; then it never does again. `now_seconds`: since 1970."""
        found = _PROOF.fullmatch(header)
        if found is None:
            return Unproven(CallFailure.BAD_PROOF, "the call has no proof, or one of another form")
        time_ms, nonce, mac = found.groups()
        if not key.is_proof(call, time_ms, nonce, mac):
            return Unproven(CallFailure.BAD_PROOF, "the proof was made with another key, or for another call")
        behind_seconds = now_seconds - int(time_ms) / 1000
        if abs(behind_seconds) > CLOCKS_DIFFER_SECONDS:
            return Unproven(
                CallFailure.STALE_PROOF, f"the caller's clock differs by {behind_seconds:.0f} s from this one"
            )
        self._forget(now_seconds)
        if nonce in self._seen:
            return Unproven(CallFailure.REPLAYED, "this very call was made before")
        if len(self._seen) >= self._most_nonces:
            return Unproven(CallFailure.BUSY, "too many calls within a minute")
        self._seen[nonce] = now_seconds
        return None

    def _forget(self, now_seconds: float) -> None:
        """Forgets the nonces of proofs that are too old by now. A time set back keeps them for longer, never for less."""
        while self._seen:
            nonce, seen_at = next(iter(self._seen.items()))
            if now_seconds - seen_at <= 2 * CLOCKS_DIFFER_SECONDS:
                return
            del self._seen[nonce]
