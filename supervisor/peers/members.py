"""Keeps the pinned pairs of people who talk to us in a group without a relation (PROTOCOL §5 "Identity").

Pinned at first sight of what the relay shows, for good; any other pair is a key change and goes by the policy. A pin gives no
right to talk to this agent outside its groups, and a relation that comes later has to meet the same pair.
"""

import contextlib
from typing import Final

import msgspec
import structlog
import trio

from bus.steps.vault import Vault, Versioned
from crypto.errors import Reason, Unreadable
from crypto.grants import KeyChangePolicy
from crypto.identity import PublicIdentity
from crypto.prekeys import bundle_from_json, check_bundle
from host.unreadable import UNREADABLE
from supervisor.relay.rest import Json, Rest, RestFailed

MOST_DEVICES: Final = 5
"""Devices of a person that are looked at: the platform allows no more (PROTOCOL §5, "Identity")."""

LOOK_AGAIN_SECONDS: Final = 60.0
"""A signature that does not verify may mean a changed pair; anybody can make one, so looking is rationed per owner."""

log = structlog.get_logger()


class Member(msgspec.Struct, frozen=True):
    """One pin. `held`: another pair that was shown since and awaits a decision."""

    pinned: PublicIdentity
    held: PublicIdentity | None = None

    def encode(self) -> bytes:
        """Returns the bytes for sealed storage."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Member":
        """Returns what `encode` was called on."""
        return msgspec.msgpack.decode(data, type=cls)


async def find_member(vault: Vault, owner_id: str) -> Member | None:
    """Returns the pin of somebody whom we know from a group; None if there is none."""
    return _decode(await vault.member(owner_id), owner_id)


async def decide_member(vault: Vault, owner_id: str, *, accepted: bool) -> bool:
    """Stores the operator's decision about a changed pair. False if none waits for a decision."""
    while True:
        read = await vault.member(owner_id)
        member = _decode(read, owner_id)
        if member is None or member.held is None:
            return False
        decided = Member(member.held if accepted else member.pinned)
        if await vault.put_member(owner_id, read, decided.encode()):
            return True


class Members:
    """The pins of one agent."""

    def __init__(self, vault: Vault, rest: Rest, policy: KeyChangePolicy) -> None:
        self._vault = vault
        self._rest = rest
        self._policy = policy
        self._looked_until: dict[str, float] = {}

    async def pair(self, owner_id: str) -> PublicIdentity:
        """Returns the pinned pair. At first sight the pair that the relay shows is pinned.

        Raises Unreadable `unknown_sender` (it shows none, or several) or `key_changed` (another awaits a decision); RestFailed.
        """
        known = await find_member(self._vault, owner_id)
        if known is None:
            shown = await self._shown(owner_id)
            log.info("member: pinned", owner=owner_id)
            known = await self._put(owner_id, Member(shown), over=None)
        if known.held is not None and self._policy is KeyChangePolicy.HOLD:
            raise Unreadable(Reason.KEY_CHANGED, "a changed identity pair awaits a decision")
        return known.pinned

    async def changed_pair(self, owner_id: str) -> PublicIdentity | None:
        """Called after a signature did not verify. Returns the pair that counts from now on if it is another one, else None.

        Raises Unreadable `key_changed` where the policy holds a changed pair; RestFailed.
        """
        now = trio.current_time()
        self._looked_until = {owner: until for owner, until in self._looked_until.items() if until > now}
        if owner_id in self._looked_until:
            return None
        known = await find_member(self._vault, owner_id)
        try:
            shown = await self._shown(owner_id)
        except Unreadable:
            self._looked_until[owner_id] = now + LOOK_AGAIN_SECONDS
            return None
        self._looked_until[owner_id] = now + LOOK_AGAIN_SECONDS  # only an answer counts: one that failed was no look
        if known is None or shown == known.pinned or self._policy is KeyChangePolicy.REFUSE:
            return None
        log.warning("member: keys changed", owner=owner_id, policy=self._policy.value)
        if self._policy is KeyChangePolicy.ACCEPT:
            return (await self._put(owner_id, Member(shown), over=known)).pinned
        await self._put(owner_id, Member(known.pinned, held=shown), over=known)
        raise Unreadable(Reason.KEY_CHANGED, "a changed identity pair awaits a decision")

    async def _put(self, owner_id: str, member: Member, *, over: Member | None) -> Member:
        """Stores a pin over the one that was read. Returns what stands there afterwards: ours, unless another supervisor was first."""
        while True:
            read = await self._vault.member(owner_id)
            found = _decode(read, owner_id)
            if found != over and found is not None:
                return found
            if await self._vault.put_member(owner_id, read, member.encode()):
                return member

    async def _shown(self, owner_id: str) -> PublicIdentity:
        """Fetches the pair of the devices that the relay lists, each with a signed prekey of that pair. Raises Unreadable unless it is one."""
        pairs = set()
        for listed in (await self._listed(owner_id))[:MOST_DEVICES]:
            try:
                bundle = bundle_from_json(listed, owner_id)
                check_bundle(bundle, bundle.identity)
            except Unreadable as error:
                log.warning("device: not usable", owner=owner_id, reason=error.reason.value)
                continue
            pairs.add(bundle.identity)
        if len(pairs) != 1:
            raise Unreadable(Reason.UNKNOWN_SENDER, f"the relay shows {len(pairs)} identity pairs of this owner")
        return pairs.pop()

    async def _listed(self, owner_id: str) -> list[Json]:
        """Fetches a person's devices, else another agent's one. Empty for an owner that the relay does not know."""
        try:
            return await self._rest.devices(owner_id)
        except RestFailed as error:
            if not error.is_final:
                raise
        try:
            return [await self._rest.agent_keys(owner_id)]
        except RestFailed as error:
            if not error.is_final:
                raise
        return []


def _decode(read: Versioned, owner_id: str) -> Member | None:
    if read.value is not None:
        with contextlib.suppress(*UNREADABLE):
            return Member.decode(read.value)
    if read.version:
        log.error("member: the stored pin does not open", owner=owner_id)
    return None
