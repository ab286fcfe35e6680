"""A thread's journal as it lies in Redis: an entry for each name, sealed, beside the places that the thread has emitted.

A thread is a handler's work from its message to its end, over all its runs; its id is its first job's. An entry is bound to the thread:
no other can read it.
"""

from collections.abc import Iterable, Mapping

from bus.records.kept import open_kept, pack_kept
from bus.records.records import BadRecord, Job
from bus.records.sealing import BusKey

JOURNAL = "journal"
JOURNAL_PREFIX = "="
"""Before a name of the journal; no place begins so."""
OWN_PREFIX = "!"
"""Before a place of ours, such as the apology's, which is none of the handler's."""
READ_PLACE = f"{OWN_PREFIX}read"
"""A place whose value is up to where the history went when the job became a dead letter."""
READ_ENTRY = "history:"
"""Names the entry of the journal that says up to where an earlier run of the thread has read the history; no step has such a name."""
MOST_JOURNAL_BYTES = 1 << 20
MOST_ENTRY_BYTES = 1 << 18
ENTRY_OVERHEAD_BYTES = 512
"""At most so much is counted of an entry beside its result: the seal, the names, and what Redis needs."""
NO_VALUE = b"1"


def pack_entry(value: bytes, job: Job, name: str, key: BusKey, agent_id: str) -> bytes:
    """Seals an entry of the journal of the job's thread."""
    return pack_kept(value, JOURNAL, job.conversation_id, _bound(job, name), key=key, agent_id=agent_id)


def _bound(job: Job, name: str) -> str:
    return f"{job.thread_id}\0{name}"


def _open_entry(packed: bytes, job: Job, name: str, key: BusKey, agent_id: str) -> bytes | None:
    """Returns the value of an entry; None if it cannot be read: a former version that brought the job back has kept its name alone."""
    try:
        return open_kept(packed, JOURNAL, job.conversation_id, _bound(job, name), key=key, agent_id=agent_id)
    except BadRecord:
        return None


def read_emitted(
    found: Mapping[str, bytes], job: Job, key: BusKey, agent_id: str
) -> tuple[frozenset[str], dict[str, str], dict[str, bytes | None]]:
    """Returns the handler's places in the hash of emitted places, the ids of the cards at them, and the journal by name."""
    names = [name.removeprefix(JOURNAL_PREFIX) for name in found if name.startswith(JOURNAL_PREFIX)]
    places = frozenset(name for name in found if not name.startswith((JOURNAL_PREFIX, OWN_PREFIX)))
    cards = {place: found[place].decode() for place in places if found[place] != NO_VALUE}
    journal = {name: _open_entry(found[JOURNAL_PREFIX + name], job, name, key, agent_id) for name in names}
    if READ_PLACE in found:
        journal.setdefault(READ_ENTRY, found[READ_PLACE])
    return places, cards, journal


def is_entry(name: bytes, value: bytes) -> bool:
    """Returns whether what stands in the hash of emitted places is an entry of the journal, and not a name alone."""
    return name.startswith(JOURNAL_PREFIX.encode()) and value != NO_VALUE


def joined(words: Iterable[bytes]) -> bytes:
    """Returns words as one text, as the scripts keep them in a dead letter."""
    return b"".join(b"%d:%b" % (len(word), word) for word in words)


def words_of(text: bytes) -> list[bytes]:
    """Returns the words in what `joined` made."""
    words, at = [], 0
    while at < len(text):
        begins = text.index(b":", at) + 1
        ends = begins + int(text[at : begins - 1])
        words.append(text[begins:ends])
        at = ends
    return words
