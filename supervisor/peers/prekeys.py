"""Makes, stores, publishes, rotates and refills our own prekeys, and finds them for a handshake (PROTOCOL §5.5).

A private half is durable before its public half is published; a one-time prekey is erased by the commit that uses it; ids are
reserved by an atomic counter, so that no two supervisors use one twice.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import msgspec
import structlog
import trio

from bus.steps.store import now_ms
from bus.steps.vault import StoreIsNewer, Vault
from bus.transport.wire import RedisFailed
from crypto.errors import NewerFormat
from crypto.identity import LocalDevice
from crypto.prekeys import (
    Bundle,
    OneTimePrekey,
    SignedPrekey,
    expired_prekeys,
    is_signed_by,
    make_one_time_prekeys,
    make_signed_prekey,
    prekeys_to_json,
    rotation_is_due,
)
from supervisor.observe.metrics import Metrics
from supervisor.relay.rest import Rest, RestFailed, pause_after
from supervisor.settings.pauses import PAUSES, Pauses

ONE_TIME_PUBLISHED = 100
"""One-time prekeys that the relay holds after a refill (PROTOCOL §5.5)."""

ONE_TIME_REFILL_UNDER = 25
"""They are refilled when fewer are left (PROTOCOL §5.5)."""

UPKEEP_SECONDS = 3600.0
"""Between two looks at rotation and refill when nobody asks: a rotation is due once a week."""

MOST_UNUSED = 1000
"""Private halves that are kept, handed out or not: people fetch some and never write."""

MOST_AT_ONCE = ONE_TIME_PUBLISHED
"""Made at once at most, however many are missing: some 5 ms of the event loop."""

log = structlog.get_logger()


class FoundPrekeys(msgspec.Struct, frozen=True):
    """The private halves that one handshake names; None for one that is unknown or used.

    `is_restored`: the one-time prekey came out of a backup. `lost_through`: signed prekeys up to this id were published before Redis went
    back (or were replaced by an operator), or came out of a backup.
    """

    signed_prekey: SignedPrekey | None
    one_time_prekey: OneTimePrekey | None
    is_restored: bool = False
    lost_through: int = 0

    def signed(self, prekey_id: int) -> SignedPrekey | None:
        """Returns the signed prekey if it has this id."""
        found = self.signed_prekey
        return found if found is not None and found.id == prekey_id else None

    def one_time(self, prekey_id: int) -> OneTimePrekey | None:
        """Returns the one-time prekey if it has this id."""
        found = self.one_time_prekey
        return found if found is not None and found.id == prekey_id else None

    def was_before_a_loss(self, signed_prekey_id: int) -> bool:
        """Returns whether a session that names this signed prekey may have been answered by a state that was lost."""
        return signed_prekey_id <= self.lost_through


NO_PREKEYS = FoundPrekeys(None, None)


class OwnPrekeys:
    """The prekeys of one agent."""

    def __init__(
        self,
        vault: Vault,
        signed_key: str,
        one_time_key: str,
        *,
        device: LocalDevice,
        rest: Rest,
        on_kept: Callable[[frozenset[int]], None],
        epoch: Callable[[], int],
        pauses: Pauses = PAUSES,
    ) -> None:
        """`signed_key`, `one_time_key`: the hashes of the private halves. `on_kept` is told which signed prekeys are left."""
        self._vault = vault
        self._signed_key = signed_key
        self._one_time_key = one_time_key
        self._device = device
        self._rest = rest
        self._on_kept = on_kept
        self._epoch = epoch
        self._pauses = pauses
        self._keeps_them = False
        """Whether the relay was told to replace one-time prekeys and did not: it is not told again and again."""
        self._wanted = trio.Event()
        self._newest_id = 0
        self.signed_since_ms: int | None = None
        """When the signed prekey that is published was made, ms of Unix time; None until it was read."""
        self.published = trio.Event()
        """Set once the relay has our prekeys."""
        self.problem = "not published yet"
        self.identity_since_ms: int | None = None
        """Since when the identity is another one than before, ms of Unix time; None if it was the same for the last 30 days."""

    async def find(self, signed_id: int, one_time_id: int | None) -> FoundPrekeys:
        """Returns the private halves that a handshake names, also those that came out of a backup."""
        vault, is_restored = self._vault, False
        lost_through = await vault.signed_prekeys_to_replace()
        signed = await vault.prekey(self._signed_key, signed_id)
        if signed is None:
            signed, lost_through = await vault.restored_prekey(self._signed_key, signed_id), signed_id
        one_time = None if one_time_id is None else await vault.prekey(self._one_time_key, one_time_id)
        if one_time_id is not None and one_time is None:
            one_time = await vault.restored_prekey(self._one_time_key, one_time_id)
            is_restored = one_time is not None
        with _newer_waits():
            return FoundPrekeys(
                None if signed is None else SignedPrekey.decode(signed),
                None if one_time is None else OneTimePrekey.decode(one_time),
                is_restored,
                lost_through,
            )

    async def recognises(self, shown: Bundle) -> bool:
        """Whether this store has the private half of the signed prekey that the relay shows of us.

        If a one-time prekey of ours came with it, its private half is erased: it was handed out to us, and nobody will name it.
        """
        ours = await self.find(shown.signed_prekey_id, shown.one_time_prekey_id)
        handed_out, signed = ours.one_time_prekey, ours.signed_prekey
        if handed_out is not None and handed_out.public == shown.one_time_prekey:
            await self._vault.erase_prekeys(self._one_time_key, [handed_out.id])
        return signed is not None and signed.public == shown.signed_prekey

    def refill_soon(self) -> None:
        """Called when the relay says that few are left."""
        self._wanted.set()

    async def keep(self, metrics: Metrics) -> None:
        """Publishes, rotates and refills, until cancelled. A relay that does not answer is asked again."""
        while True:
            self._wanted = trio.Event()
            try:
                left = await self.publish()
            except (RestFailed, RedisFailed) as error:
                before, self.problem = self.problem, str(error)
                if self.problem != before:
                    log.warning("prekeys: not published", reason=self.problem)
                await trio.sleep(pause_after(error, self._pauses.prekeys_retry))
                continue
            metrics.one_time_prekeys_left.set(left)
            self.problem = ""
            self.published.set()
            published_at = trio.current_time()
            with trio.move_on_after(UPKEEP_SECONDS):
                await self._until_wanted()
            await trio.sleep_until(published_at + self._pauses.prekeys)

    async def _until_wanted(self) -> None:
        """Waits until few are left, or a command wishes for a new signed prekey (`keys rotate-prekeys`)."""
        while not self._wanted.is_set():
            with contextlib.suppress(RedisFailed):
                through, epoch = await self._vault.prekey_wishes()
                if through >= self._newest_id or epoch < self._epoch():
                    return
            with trio.move_on_after(self._pauses.prekeys_wish):
                await self._wanted.wait()

    async def publish(self) -> int:
        """Publishes the signed prekey and, if few are left, new one-time prekeys. Returns how many the relay holds then.

        Where the relay may hand out some whose private halves this store does not have (the store is new, Redis was lost, or came back
        older and raised the epoch), whoever gets one could not be read: all of them are replaced there.
        """
        signed = await self._current_signed()
        epoch = self._epoch()
        if await self._vault.one_time_prekeys_epoch() < epoch:
            return await self._replace(signed, epoch)
        unused = await self._vault.prekeys_left(self._one_time_key)
        first = [] if unused else await self._new_one_time(ONE_TIME_PUBLISHED)
        left = await self._register(signed, first, replace=not unused)
        if not self._keeps_them and left > max(unused, await self._vault.prekeys_left(self._one_time_key)):
            log.warning("prekeys: the relay has some that this store does not know; all are replaced", there=left)
            return await self._replace(signed, epoch)
        if left < ONE_TIME_REFILL_UNDER and unused < MOST_UNUSED:
            left = await self._register(signed, await self._new_one_time(min(ONE_TIME_PUBLISHED - left, MOST_AT_ONCE)))
        elif left < ONE_TIME_REFILL_UNDER:
            log.warning("prekeys: no new one-time prekeys, too many were given out and never used", unused=unused)
        return left

    async def _replace(self, signed: SignedPrekey, epoch: int) -> int:
        await self._make_room(ONE_TIME_PUBLISHED)
        left = await self._register(signed, await self._new_one_time(ONE_TIME_PUBLISHED), replace=True)
        await self._vault.note_one_time_prekeys_epoch(epoch)
        self._keeps_them = left > ONE_TIME_PUBLISHED
        if self._keeps_them:
            log.warning(
                "prekeys: the relay has kept the earlier ones; whoever gets one of them is offered a new session",
                there=left,
            )
        return left

    async def _current_signed(self) -> SignedPrekey:
        stored = await self._vault.prekeys(self._signed_key)
        restored = await self._vault.restored_prekey_ids(self._signed_key)
        with _newer_waits():
            kept = [SignedPrekey.decode(encoded) for encoded in stored.values()]
        ours = [prekey for prekey in kept if is_signed_by(prekey, self._device)]
        newest = max(ours, key=lambda prekey: prekey.id, default=None)
        now = now_ms()
        self._note_identity(kept, ours, now)
        through = await self._vault.signed_prekeys_to_replace()
        if newest is not None and not rotation_is_due(newest, now) and newest.id > through:
            self._newest_id, self.signed_since_ms = newest.id, newest.created_ms
            self._on_kept(frozenset(prekey.id for prekey in kept).union(restored))
            return newest
        prekey_id = await self._vault.next_prekey_ids("signed", 1)
        made = make_signed_prekey(self._device, prekey_id, now, os.urandom)
        await self._vault.put_prekeys(self._signed_key, {made.id: made.encode()})
        self._newest_id, self.signed_since_ms = made.id, made.created_ms
        expired = expired_prekeys([*kept, made], now)
        await self._vault.erase_prekeys(self._signed_key, list(expired))
        self._on_kept(frozenset(prekey.id for prekey in (*kept, made)).difference(expired).union(restored))
        log.info("prekeys: signed prekey made", prekey_id=made.id)
        return made

    def _note_identity(self, kept: list[SignedPrekey], ours: list[SignedPrekey], now: int) -> None:
        """Notes since when the identity is another one. Prekeys of a former one are kept as any: what was sealed for them may still come."""
        was_new = self.identity_since_ms
        last_of_others = max((prekey.created_ms for prekey in kept if prekey not in ours), default=None)
        if last_of_others is None:
            self.identity_since_ms = None
            return
        self.identity_since_ms = min(
            (one.created_ms for one in ours if one.created_ms >= last_of_others), default=was_new or now
        )
        if was_new is None and self.identity_since_ms == now:
            log.warning("identity: the keys are others than before; people are asked to accept them")

    async def _new_one_time(self, count: int) -> list[OneTimePrekey]:
        first = await self._vault.next_prekey_ids("one_time", count)
        made = make_one_time_prekeys(first, count, os.urandom)
        await self._vault.put_prekeys(self._one_time_key, {prekey.id: prekey.encode() for prekey in made})
        return made

    async def _make_room(self, count: int) -> None:
        """Erases the oldest, which the relay will hand out no more; a first message under one that was handed out is renegotiated."""
        unused = await self._vault.prekeys_left(self._one_time_key)
        if (too_many := unused + count - MOST_UNUSED) > 0:
            oldest = sorted(await self._vault.prekeys(self._one_time_key))[:too_many]
            await self._vault.erase_prekeys(self._one_time_key, oldest)
            log.info("prekeys: the oldest of those that were given out and never used are erased", count=len(oldest))

    async def _register(self, signed: SignedPrekey, one_time: list[OneTimePrekey], *, replace: bool = False) -> int:
        return await self._rest.register_keys(prekeys_to_json(self._device, signed, one_time, replace=replace))


@contextlib.contextmanager
def _newer_waits() -> Iterator[None]:
    try:
        yield
    except NewerFormat as error:
        raise StoreIsNewer(f"{error}; upgrade this one") from None
