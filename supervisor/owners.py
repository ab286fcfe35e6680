"""Who may talk to this agent, and the keys under which we know them (PROTOCOL §5 "Identity", §5.7).

A row per owner: grant, pinned pair, devices. The pair is pinned at first sight and survives revocation; another pair never
replaces it here. Rows change by compare-and-set, since several supervisors hear the same relations.
"""

import msgspec
import structlog
import trio

from bus.store import now_ms
from bus.vault import Vault, Versioned
from crypto import strict_base64
from crypto.errors import Unreadable
from crypto.identity import PublicIdentity
from crypto.prekeys import Bundle, bundle_from_json, check_bundle
from supervisor.frames import Relation
from supervisor.rest import Rest, RestFailed

DEVICES_FRESH_MS = 24 * 3600 * 1000
UNLISTED_FETCH_MS = 60 * 1000
REFRESH_AGAIN_SECONDS = 1.0
MOST_DEVICES = 5

log = structlog.get_logger()


class Owner(msgspec.Struct, frozen=True):
    """One row. `status`: active, suspended or revoked; keys of 32 bytes each."""

    owner_id: str
    status: str
    agreement_key: bytes
    signing_key: bytes
    scopes: list[str]
    display_name: str | None
    devices: list[str]
    devices_fetched_ms: int
    since_ms: int
    changed_ms: int

    @property
    def pinned(self) -> PublicIdentity:
        """The pair of this owner."""
        return PublicIdentity(self.agreement_key, self.signing_key)

    @property
    def is_active(self) -> bool:
        """Whether the owner may talk to us now."""
        return self.status == "active"


class Owners:
    """The rows of one agent."""

    def __init__(self, vault: Vault, rest: Rest) -> None:
        self._vault = vault
        self._rest = rest
        self._refreshed_at = -REFRESH_AGAIN_SECONDS
        self._refreshing = trio.Lock()

    async def find(self, owner_id: str) -> Owner | None:
        """The row of an owner."""
        return _decode(await self._vault.owner(owner_id))

    async def find_or_refresh(self, owner_id: str) -> Owner | None:
        """The row of an owner; for an unknown one the relations are read once more (frames may be missed)."""
        known = await self.find(owner_id)
        if known is not None:
            return known
        await self.refresh()
        return await self.find(owner_id)

    async def refresh(self) -> None:
        """Read all relations from the relay; at most one request a second. Raises RestFailed."""
        async with self._refreshing:
            if trio.current_time() - self._refreshed_at < REFRESH_AGAIN_SECONDS:
                return
            for relation in await self._rest.relations():
                await self.note(relation, relation.status or "active")
            self._refreshed_at = trio.current_time()

    async def note(self, relation: Relation, status: str) -> None:
        """The relay says that an owner's relation has this status."""
        while True:
            read = await self._vault.owner(relation.user_id)
            row = _noted(_decode(read), relation, status, now_ms())
            if row is None or await self._put(read, row):
                return

    async def bundles(self, owner: Owner) -> dict[str, Bundle]:
        """The owner's devices by id, fetched now, each with a valid signed prekey under the pinned pair."""
        bundles = {}
        for entry in (await self._rest.devices(owner.owner_id))[:MOST_DEVICES]:
            try:
                bundle = bundle_from_json(entry, owner.owner_id)
                check_bundle(bundle, owner.pinned)
            except Unreadable as error:
                log.warning("device: not usable", owner=owner.owner_id, reason=error.reason.value)
                continue
            bundles[bundle.device_id] = bundle
        await self._note_devices(owner.owner_id, sorted(bundles))
        return bundles

    async def devices(self, owner: Owner) -> list[str]:
        """The ids of the owner's devices, fetched again after 24 h."""
        if owner.devices and now_ms() - owner.devices_fetched_ms < DEVICES_FRESH_MS:
            return owner.devices
        try:
            return sorted(await self.bundles(owner))
        except RestFailed:
            if owner.devices:
                return owner.devices  # better the devices of yesterday than no answer
            raise

    async def has_device(self, owner: Owner, device_id: str) -> bool:
        """Whether a device is the owner's; the list is fetched again for an unlisted one, once a minute."""
        if device_id in owner.devices:
            return True
        if now_ms() - owner.devices_fetched_ms < UNLISTED_FETCH_MS and owner.devices:
            return False
        return device_id in await self.bundles(owner)

    async def _note_devices(self, owner_id: str, devices: list[str]) -> None:
        while True:
            read = await self._vault.owner(owner_id)
            row = _decode(read)
            if row is None:
                return
            fetched = msgspec.structs.replace(row, devices=devices, devices_fetched_ms=now_ms())
            if await self._put(read, fetched):
                return

    async def _put(self, read: Versioned, row: Owner) -> bool:
        return await self._vault.put_owner(row.owner_id, read, msgspec.msgpack.encode(row))


def _decode(read: Versioned) -> Owner | None:
    return None if read.value is None else msgspec.msgpack.decode(read.value, type=Owner)


def _noted(known: Owner | None, relation: Relation, status: str, now_ms: int) -> Owner | None:
    """The row after a relation; None when it changes nothing or names no usable keys."""
    if known is not None:
        scopes = list(relation.scopes) or known.scopes
        name = relation.display_name or known.display_name
        changed = msgspec.structs.replace(known, status=status, scopes=scopes, display_name=name, changed_ms=now_ms)
        same = msgspec.structs.replace(changed, changed_ms=known.changed_ms) == known
        return None if same else changed
    if relation.public_key is None or relation.signing_public_key is None:
        return None
    try:
        pinned = PublicIdentity.checked(
            strict_base64.decode(relation.public_key), strict_base64.decode(relation.signing_public_key)
        )
    except Unreadable as error:
        log.warning("relation: keys not usable", owner=relation.user_id, reason=error.reason.value)
        return None
    return Owner(
        owner_id=relation.user_id,
        status=status,
        agreement_key=pinned.agreement_key,
        signing_key=pinned.signing_key,
        scopes=list(relation.scopes),
        display_name=relation.display_name,
        devices=[],
        devices_fetched_ms=0,
        since_ms=now_ms,
        changed_ms=now_ms,
    )
