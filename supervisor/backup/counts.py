"""Counts what is in a backup while its pieces pass, for people."""

from bus.records.saved import Saved, SavedConversation, Value, Waiting


class BackupCounts:
    """The counts of each kind of thing in a backup."""

    def __init__(self) -> None:
        self._of: dict[str, int] = dict.fromkeys(
            (
                *("people", "grant changes", "members of groups", "groups", "sessions", "prekeys", "conversations"),
                *("states of conversations", "exchanges of conversations"),
                *("jobs that wait", "replies that wait", "sends that wait", "messages at the relay that are noted"),
                *("dead letters", "messages in quarantine", "lines of history"),
            ),
            0,
        )
        self._quarantined: set[str] = set()  # they are saved twice (bus/whole/snapshot.py)

    def add(self, saved: Saved) -> None:
        """Counts one more piece."""
        match saved:
            case Value():
                self._value(saved)
            case Waiting():
                self._waits(saved.place, len(saved.parts))
            case SavedConversation():
                self._conversation(saved)

    def rows(self) -> list[tuple[str, int]]:
        """Returns each kind of thing and its number."""
        return list(self._of.items())

    def __getitem__(self, thing: str) -> int:
        return self._of[thing]

    def _value(self, value: Value) -> None:
        match value.kind:
            case "owner":
                self._more("people")
            case "member":
                self._more("members of groups")
            case "group":
                self._more("groups")
            case "session":
                self._more("sessions")
            case "dead":
                self._more("dead letters")
            case "ledger":
                self._more("lines of history")
            case "grant_log":
                self._more("grant changes", len(value.parts))
            case "outside":
                self._more("replies that wait", len(value.parts))
            case "signed_prekeys" | "one_time_prekeys":
                self._more("prekeys", len(value.parts) // 2)
            case "held" if value.ids:
                self._more("messages at the relay that are noted", len(value.parts) // 2)
            case "quarantined" if value.ids not in self._quarantined:
                self._quarantined.add(value.ids)
                self._more("messages in quarantine")

    def _conversation(self, one: SavedConversation) -> None:
        self._more("conversations")
        self._more("states of conversations", bool(one.state))
        self._more("exchanges of conversations", len(one.history))
        self._more("jobs that wait", bool(one.job) + (b"retry" in one.row[::2]))
        self._more("sends that wait", bool(one.sent))
        for place, parts in (("box", one.box), ("parked", one.parked), ("together", one.together), ("out", one.out)):
            self._waits(place, len(parts))

    def _waits(self, place: str, parts: int) -> None:
        if place in ("box", "parked"):
            self._more("jobs that wait", parts // 2)
        elif place == "together":
            self._more("jobs that wait", parts)
        else:
            self._more("replies that wait", parts)

    def _more(self, thing: str, count: int = 1) -> None:
        self._of[thing] += count
