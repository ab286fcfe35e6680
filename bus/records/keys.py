"""Spells every Redis key; nothing else does.

All keys of one agent carry the hash tag `{agent_id}`: one cluster slot, so that a script may touch any of them.
Conversation keys end in the conversation's id, session keys in the peer's owner and device. What most scripts need is the
*board*: the keys of one conversation and those that all conversations share, in one fixed order (bus/scripts/_library.lua).
"""

from functools import cached_property, lru_cache
from typing import NamedTuple

JOBS_GROUP = "workers"
REPLIES_GROUP = "supervisors"
MOST_BOARDS = 1000  # conversations whose key names are kept: those in which something was said just now


class KeptKeys(NamedTuple):
    """The keys of what handlers keep of a conversation and what belongs to it, in the order of bus/scripts/jobs/settle.lua."""

    waits: str
    state: str
    history: str
    histories: str
    timers: str
    alarms: str
    cards: str
    store: str


class Keys:
    """Key names of one agent."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self._prefix = f"hashee:{{{agent_id}}}:"
        self._boards = lru_cache(MOST_BOARDS)(self._board)
        self._kept_ins = lru_cache(MOST_BOARDS)(self._kept_in)

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def board(self, conversation_id: str) -> tuple[str, ...]:
        """Returns the KEYS of a script about a conversation, in the order in which `_library.lua` names them."""
        return self._boards(conversation_id)

    def kept_in(self, conversation_id: str) -> KeptKeys:
        """Returns the keys behind the board that `settle` uses."""
        return self._kept_ins(conversation_id)

    def _kept_in(self, at: str) -> KeptKeys:
        in_it = (self.waits(at), self.state(at), self.history(at), self.histories)
        return KeptKeys(*in_it, self.timers(at), self.alarms, self.cards(at), self.store)

    def _board(self, conversation_id: str) -> tuple[str, ...]:
        return (
            self.conversation(conversation_id),
            self.ids(conversation_id),
            self.taken(conversation_id),
            self.mailbox(conversation_id),
            self.parked(conversation_id),
            self.placed(conversation_id),
            self.together(conversation_id),
            self.emitted(conversation_id),
            self.out_box(conversation_id),
            self.sent(conversation_id),
            self.load_of(conversation_id),
            self.history(conversation_id),
            *self._shared,
        )

    @cached_property
    def _shared(self) -> list[str]:
        return [
            self.jobs,
            self.replies,
            self.due,
            self.dead,
            self.resend_times,
            self.acks,
            self.busy,
            self.waiting,
            self.interrupted,
            self.interrupts,
            self.streams,
            self.policy,
            self.epoch,
            self.write_count,
            self.ledger,
            self.load,
            self.held,
        ]

    @property
    def pattern(self) -> str:
        """Matches every key of this agent, for SCAN."""
        return self._prefix + "*"

    def of(self, kind: str, ids: str = "") -> str:
        """Returns the key of this kind with these ids; `split` reverses it."""
        return self._key(kind, ids) if ids else self._key(kind)

    def split(self, key: str) -> tuple[str, str]:
        """Returns the kind of a key of this agent, and the ids in it ('' if it has none)."""
        kind, _, ids = key.removeprefix(self._prefix).partition(":")
        return kind, ids

    # Whole agent

    @property
    def write_count(self) -> str:
        """Counter: how often scripts have written. A lower value than one seen before means that Redis went back."""
        return self._key("gen")

    @property
    def epoch(self) -> str:
        """Number: raised when Redis went back; a session of a lower epoch may decrypt, and never encrypts."""
        return self._key("epoch")

    @cached_property
    def continuity(self) -> str:
        """Hash: `server`, the last one that was checked and had lost nothing; `commits`, how many there were."""
        return self._key("continuity")

    @property
    def cursor(self) -> str:
        """String: message_id up to which every polled message is taken in."""
        return self._key("cursor")

    @property
    def first_sync(self) -> str:
        """String: when this agent first polled with this store (ms), or `ended`. Until it has ended, much older messages are skipped."""
        return self._key("first_sync")

    @property
    def jobs(self) -> str:
        """Stream: at most one entry per conversation, the job that may run now."""
        return self._key("jobs")

    @property
    def replies(self) -> str:
        """Stream: at most one entry per conversation, the head of its out-box."""
        return self._key("replies")

    @property
    def due(self) -> str:
        """Sorted set conversation → time at which its failed job runs again."""
        return self._key("due")

    @property
    def busy(self) -> str:
        """Sorted set: conversations with a job or a reply under way → time since when."""
        return self._key("busy")

    @property
    def placements(self) -> str:
        """Sorted set: ids of the latest jobs that were placed without a message → when."""
        return self._key("placements")

    @property
    def behind(self) -> str:
        """Sorted set: conversations in which placed jobs wait → when one of them was last looked after."""
        return self._key("behind")

    @property
    def alarms(self) -> str:
        """Sorted set: conversation and id of each timer → when it is due."""
        return self._key("alarms")

    @property
    def waiting(self) -> str:
        """Counter: jobs in all mailboxes (what is parked is not counted)."""
        return self._key("waiting")

    @property
    def load(self) -> str:
        """Hash: bytes of what waits: messages in all (`total`) and of each sender (`s:` and its id), replies (`out`, at most `most_out`), `outside`;
        open questions (`waits`), and their number (`waits_open`).
        """
        return self._key("load")

    @property
    def held(self) -> str:
        """Hash: how many notes of messages that wait at the relay there are, in all (`total`) and of each sender (`s:` and its id)."""
        return self._key("held")

    def notes(self, sender_id: str) -> str:
        """Hash message_id (or a separator and a conversation) → note of what of this sender waits at the relay (bus/steps/held.py)."""
        return self._key("held", sender_id)

    @property
    def interrupted(self) -> str:
        """Set: entries of `jobs` that a later message supersedes."""
        return self._key("interrupted")

    @property
    def interrupts(self) -> str:
        """Publish/subscribe channel (no key): each entry of `jobs` when it is superseded."""
        return self._key("interrupts")

    @property
    def streams(self) -> str:
        """Hash conversation → stream_id, space, supervisor: streams that were started and not ended."""
        return self._key("streams")

    @property
    def policy(self) -> str:
        """Hash: what the handler's code declares for busy and full conversations (bus/steps/policies.py)."""
        return self._key("policy")

    @property
    def ledger(self) -> str:
        """Stream: what happened to each message, without content (bus/views/trace.py)."""
        return self._key("ledger")

    @property
    def dead(self) -> str:
        """Stream of dead letters."""
        return self._key("dead")

    @property
    def dead_copy(self) -> str:
        """Stream: re-sealed dead letters, which replace `dead` when the store secret is rotated."""
        return self._key("dead_copy")

    @property
    def resend_times(self) -> str:
        """Sorted set conversation → time at which its unconfirmed record is sent again."""
        return self._key("outbox")

    @property
    def acks(self) -> str:
        """Hash client_message_id → conversation, for acknowledgements heard by another connection."""
        return self._key("acks")

    @property
    def outside(self) -> str:
        """List: messages that no job said and that wait for their turn, all conversations' in one line (bus/steps/outside.py)."""
        return self._key("outside")

    @cached_property
    def outside_turn(self) -> str:
        """Which of them is in an out-box and not committed yet, with an expiry."""
        return self._key("outside_turn")

    def send_keys(self, period: int) -> str:
        """Hash digest of conversation and key → digest of what was sent under it, of one period, with an expiry (bus/steps/outside.py)."""
        return self._key("send_keys", str(period))

    @cached_property
    def rate(self) -> str:
        """Hash: token bucket of the agent's sends, shared by its supervisors."""
        return self._key("rate")

    @property
    def quarantine(self) -> str:
        """Sorted set message_id → time, of messages that could not be read."""
        return self._key("quarantine")

    @property
    def kept(self) -> str:
        """Hash: bytes of frames and plaintexts in quarantine: in all (`total`), `unsigned` ones, and of each sender (`s:` and its id)."""
        return self._key("kept")

    @property
    def wanted(self) -> str:
        """Set: message_ids in quarantine that are to be tried again now."""
        return self._key("wanted")

    @property
    def waiting_for(self) -> str:
        """Sorted set (by name): what each message in quarantine waits for, why it could not be read, its name."""
        return self._key("waiting_for")

    @property
    def old(self) -> str:
        """Sorted set: conversation, seq and message_id of messages that came again and can no longer be read → when."""
        return self._key("old")

    def quarantined(self, message_id: str) -> str:
        """Hash: one message that could not be read."""
        return self._key("quarantined", message_id)

    @property
    def reclaimer(self) -> str:
        """The reclaimer's lease: the supervisor that reclaims, with an expiry."""
        return self._key("reclaimer")

    def work_lease(self, work: str) -> str:
        """A work lease: the supervisor that does this work now, with an expiry."""
        return self._key("office", work)

    @property
    def slots(self) -> str:
        """Hash slot number → record of its last holder, which outlives the slot's lease."""
        return self._key("slots")

    def slot(self, number: int) -> str:
        """Name of the supervisor that may be connected as number 1, 2, …, with an expiry."""
        return self._key("slot", str(number))

    @property
    def ghosts(self) -> str:
        """Sorted set of supervisors that ended without giving up their slot → time until which the relay may take them as connected."""
        return self._key("ghosts")

    @property
    def ghost_poll(self) -> str:
        """The supervisor that last polled because of a ghost, with an expiry."""
        return self._key("ghost_poll")

    @property
    def standby(self) -> str:
        """The supervisor that waits for a slot, with an expiry."""
        return self._key("standby")

    def probe(self, supervisor: str) -> str:
        """Written by a supervisor once a second, to see whether Redis takes anything, with an expiry."""
        return self._key("probe", supervisor)

    @property
    def consumers(self) -> str:
        """Sorted set of living worker consumers → last time seen."""
        return self._key("consumers")

    def presence(self, consumer: str) -> str:
        """What a living worker last reported of itself, with an expiry."""
        return self._key("presence", consumer)

    @property
    def live_channel(self) -> str:
        """Publish/subscribe channel (no key) for what is worth nothing later: deltas, typing."""
        return self._key("live")

    def budget(self, subject: str) -> str:
        """Hash: messages and tokens of today, and messages of the last minute, of one person or of all (bus/records/budgets.py), with an expiry."""
        return self._key("budget", subject)

    @property
    def store(self) -> str:
        """Hash key of the owner's → record: what handlers keep for the whole agent; the field without a name: bytes of all of them."""
        return self._key("store")

    # One conversation

    def conversation(self, conversation_id: str) -> str:
        """Hash: next, entry, reply, pins, … (docs/design.md lists them)."""
        return self._key("conv", conversation_id)

    def ids(self, conversation_id: str) -> str:
        """String of 8-byte prefixes: the signed ids that were taken in."""
        return self._key("ids", conversation_id)

    def taken(self, conversation_id: str) -> str:
        """Sorted set of our own messages' seqs at or above `next`."""
        return self._key("taken", conversation_id)

    def mailbox(self, conversation_id: str) -> str:
        """Sorted set by seq: jobs that wait for the running one."""
        return self._key("box", conversation_id)

    def parked(self, conversation_id: str) -> str:
        """Sorted set by seq: jobs for which the mailbox has no room."""
        return self._key("parked", conversation_id)

    def placed(self, conversation_id: str) -> str:
        """Sorted set: jobs that no message began, which wait, each by a number between the seqs of the messages before and behind it."""
        return self._key("placed", conversation_id)

    def together(self, conversation_id: str) -> str:
        """List: jobs that are handled together with the running one."""
        return self._key("together", conversation_id)

    def emitted(self, conversation_id: str) -> str:
        """Hash of the running job: place → 1 or the id of the card at it, and `=` and a name → an entry of its thread's journal."""
        return self._key("emitted", conversation_id)

    def cards(self, conversation_id: str) -> str:
        """Hash card id → its revision, the job and place that sent it, what it is (bus/records/cards.py); with an expiry."""
        return self._key("cards", conversation_id)

    def waits(self, conversation_id: str) -> str:
        """Hash of the threads that wait for an answer: wait → record, `from:` and `bound:` it → what scripts know of it."""
        return self._key("waits", conversation_id)

    def out_box(self, conversation_id: str) -> str:
        """List: replies in the order in which they leave."""
        return self._key("out", conversation_id)

    def sent(self, conversation_id: str) -> str:
        """Hash: the one outbox record that waits for its acknowledgement."""
        return self._key("sent", conversation_id)

    def load_of(self, conversation_id: str) -> str:
        """Hash: this conversation's part of `load`."""
        return self._key("load", conversation_id)

    def timers(self, conversation_id: str) -> str:
        """Hash: timers by their ids."""
        return self._key("timers", conversation_id)

    def state(self, conversation_id: str) -> str:
        """String: the record of what the agent's handlers keep of this conversation (bus/records/kept.py)."""
        return self._key("state", conversation_id)

    def history(self, conversation_id: str) -> str:
        """List: what was said, a record for each exchange, oldest first. `conv` counts its bytes (`history`)."""
        return self._key("history", conversation_id)

    @property
    def histories(self) -> str:
        """Hash: bytes of all histories, by the day (of Unix time) of their exchanges; `most`, their bound."""
        return self._key("histories")

    # Keys and peers (sealed with the state key)

    def session(self, owner_id: str, device_id: str) -> str:
        """Hash v, b, e: version, sealed device record, epoch."""
        return f"{self._prefix}session:{owner_id}:{device_id}"  # five times a message

    def owner(self, owner_id: str) -> str:
        """Hash v, b: one row of the grant ledger with pins and devices."""
        return self._key("owner", owner_id)

    def member(self, owner_id: str) -> str:
        """Hash v, b: the pair under which we know somebody who talks to us in a group only."""
        return self._key("member", owner_id)

    def group(self, group_id: str) -> str:
        """Hash v, b: the kept versions of a group's key."""
        return self._key("group", group_id)

    @property
    def seal(self) -> str:
        """Hash: which store secret opens this store (bus/steps/seal.py)."""
        return self._key("seal")

    def restoring(self, kind: str, ids: str) -> str:
        """A restored value that gets its own key's name once the whole store is restored (bus/whole/restore_switch.py)."""
        return self._key("restoring", kind, *([ids] if ids else []))

    @property
    def last_backup(self) -> str:
        """Sorted set with one member: when which backup of this store was made last (bus/steps/last_backup.py)."""
        return self._key("last_backup")

    @property
    def owners(self) -> str:
        """Set of the owner ids that have a row."""
        return self._key("owners")

    @property
    def grant_log(self) -> str:
        """List: every change of a grant, each its MAC (64 hex digits) and the sealed entry."""
        return self._key("grant_log")

    @property
    def grant_head(self) -> str:
        """String: MAC of the last entry of `grant_log`, in hex."""
        return self._key("grant_head")

    @property
    def signed_prekeys(self) -> str:
        """Hash id → sealed private half."""
        return self._key("signed_prekeys")

    @cached_property
    def one_time_prekeys(self) -> str:
        """Hash id → sealed private half; erased in the commit that uses it."""
        return self._key("one_time_prekeys")

    @property
    def restored_signed_prekeys(self) -> str:
        """Hash id → sealed private half out of a backup, with an expiry: it may decrypt, and is never offered."""
        return self._key("restored_signed_prekeys")

    @cached_property
    def restored_one_time_prekeys(self) -> str:
        """Hash id → sealed private half out of a backup, with an expiry."""
        return self._key("restored_one_time_prekeys")

    @property
    def prekey_state(self) -> str:
        """Hash: last id of each kind; `rotate_through`: signed prekeys up to this id are to be replaced."""
        return self._key("prekey_state")
