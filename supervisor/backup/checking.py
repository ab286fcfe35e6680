"""Opens every sealed value of a backup with the store secret in it, as the supervisor would after a restore, but without any Redis.

The policies' two texts are left out, since workers publish them anew.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from bus.records.journal import is_entry, words_of
from bus.records.kept import STORE_BYTES_FIELD, is_wait
from bus.records.keys import Keys
from bus.records.records import BadRecord
from bus.records.saved import Saved, SavedConversation, Value, Waiting, pairs
from bus.records.sealing import SealBroken, StoreKeys
from bus.steps.seal import STATE_CHECK, keys_under
from bus.whole.reseal import MAC_HEX_BYTES, Turner, is_outbox_record
from crypto.grants import FIRST_PREVIOUS, entry_mac
from supervisor.settings.secrets import Secret


class Checking:
    """Checks the pieces of one backup. `unreadable`: by kind, how many values do not open; `chain_holds`: whether the grant log verifies."""

    def __init__(self, agent_id: str, store_secret: Secret[bytes]) -> None:
        self._names = Keys(agent_id)
        self._secret = store_secret
        self.keys: StoreKeys | None = None
        """The keys of the store in the backup; None if the secret in the backup is not that store's."""
        self._turner: Turner | None = None
        self._previous = FIRST_PREVIOUS
        self.unreadable: Counter[str] = Counter()
        self.opened = 0
        self.chain_holds = True

    def look(self, saved: Saved) -> None:
        """Checks one more piece. Raises ValueError, OverflowError if it does not have the form of its kind."""
        match saved:
            case Value(kind="seal"):
                self._seal(dict(pairs(saved.parts)))
            case Value():
                self._value(saved)
            case Waiting():
                self._records("waiting", _records_in(saved.place, saved.parts))
            case SavedConversation():
                places = (
                    ("box", saved.box),
                    ("parked", saved.parked),
                    ("placed", saved.placed),
                    ("together", saved.together),
                    ("out", saved.out),
                )
                for place, parts in places:
                    self._records("conv", _records_in(place, parts))
                for flat in (saved.sent, saved.load, saved.values, saved.waits):
                    pairs(flat)
                retry = dict(pairs(saved.row)).get(b"retry")
                entries = [dict(pairs(entry)).get(b"r", b"") for entry in (saved.job, saved.reply) if entry]
                self._records("conv", [*entries, *([] if retry is None else [retry])])
                self._journal("conv", pairs(saved.values))
                for name, values in pairs(saved.row):
                    if name.startswith(b"j:"):
                        self._journal("conv", pairs(words_of(values)))
                self._kept("state", [saved.state] if saved.state else [])
                self._kept("waits", [record for name, record in pairs(saved.waits) if is_wait(name)])
                self._kept("history", saved.history)

    def _seal(self, fields: dict[bytes, bytes]) -> None:
        named = {name.decode(): value for name, value in fields.items()}
        try:
            keys = keys_under(self._secret.reveal(), self._names.seal, named) if STATE_CHECK in named else None
        except SealBroken:
            keys = None
        if keys is not None:
            self.keys, self._turner = keys, Turner(keys, keys, self._names.agent_id)

    def _value(self, value: Value) -> None:
        key = self._names.of(value.kind, value.ids)
        row = dict(pairs(value.parts)) if value.shape in ("hash", "zset") else {}
        match value.kind:
            case "session" | "owner" | "member" | "group":
                if b"b" in row:
                    self._sealed(value.kind, row[b"b"], key, int(row.get(b"v", 0)))
            case "signed_prekeys" | "one_time_prekeys":
                for prekey_id, sealed in row.items():
                    self._sealed(value.kind, sealed, key, int(prekey_id))
            case "quarantined":
                if row.get(b"plaintext"):
                    self._sealed(value.kind, row[b"plaintext"], "quarantine", self._names.agent_id, value.ids)
            case "grant_log":
                for line in value.parts:
                    self._grant(line)
            case _:
                self._for_handlers(value)

    def _for_handlers(self, value: Value) -> None:
        """Checks what is sealed for workers, and stands in no conversation."""
        match value.kind:
            case "store":
                self._kept(
                    "store", [record for name, record in pairs(value.parts) if name != STORE_BYTES_FIELD.encode()]
                )
            case "timers":
                if self._turner is not None:
                    self._open_each("timers", [record for _, record in pairs(value.parts)], self._turner.timer)
            case "outside":
                self._records("outside", value.parts)
            case "dead":
                letter = dict(pairs(value.parts[2:]))
                record = letter.get(b"r", b"")
                self._records("dead", [record] if record and not is_outbox_record(record) else [])
                self._journal("dead", pairs(words_of(letter.get(b"j", b""))))

    def _grant(self, line: bytes) -> None:
        mac, sealed = line[:MAC_HEX_BYTES], line[MAC_HEX_BYTES:]
        entry = self._sealed("grant_log", sealed, self._names.grant_log, self._previous.hex())
        if (
            entry is None
            or self.keys is None
            or entry_mac(self.keys.ledger, self._previous, entry).hex().encode() != mac
        ):
            self.chain_holds = False
        self._previous = bytes.fromhex(mac.decode("ascii", "replace"))

    def _sealed(self, kind: str, sealed: bytes, *place: str | int) -> bytes | None:
        if self.keys is None:
            return None
        try:
            opened = self.keys.state.open(sealed, *place)
        except SealBroken:
            self.unreadable[kind] += 1
            return None
        self.opened += 1
        return opened

    def _records(self, kind: str, records: Iterable[bytes]) -> None:
        if self._turner is not None:
            self._open_each(kind, records, self._turner.record)

    def _journal(self, kind: str, values: Iterable[tuple[bytes, bytes]]) -> None:
        self._kept(kind, [value for name, value in values if is_entry(name, value)])

    def _kept(self, kind: str, records: Iterable[bytes]) -> None:
        if self._turner is not None:
            self._open_each(kind, records, self._turner.kept)

    def _open_each(self, kind: str, records: Iterable[bytes], look: Callable[[bytes], object]) -> None:
        for record in records:
            try:
                look(record)
            except (BadRecord, SealBroken):
                self.unreadable[kind] += 1
            else:
                self.opened += 1


def _records_in(place: str, parts: list[bytes]) -> list[bytes]:
    if place not in ("box", "parked", "placed"):
        return parts
    scored = pairs(parts)
    for _, score in scored:
        float(score)
    return [record for record, _ in scored]
