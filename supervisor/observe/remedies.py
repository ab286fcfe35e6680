"""The meaning of each reason in quarantine and dead letters, and what an operator can do; the commands show it.

docs/messages.md has the same, and a test compares the two.
"""

from collections.abc import Mapping
from typing import NamedTuple

from crypto.errors import Reason


class Remedy(NamedTuple):
    """One row of docs/messages.md."""

    meaning: str
    remedy: str


WAIT = "nothing: it is tried again by itself"

QUARANTINE: Mapping[Reason, Remedy] = {
    Reason.MALFORMED: Remedy(
        "it is not what the protocol says a message is, or it is dated more than a day ahead",
        "look at this host's clock (`hashee-agent doctor`): if it is a day behind, what is of days to come is tried again by itself when it is set; "
        "else look at the sender's client, and drop it when that is mended",
    ),
    Reason.UNSUPPORTED_VERSION: Remedy(
        "its version is not the one for its kind of conversation",
        "the sender's client, or this agent, needs a newer version; then retry",
    ),
    Reason.NOT_FOR_US: Remedy(
        "it is addressed to somebody else, or comes from somebody else than the conversation's person",
        "drop it; when it comes often, the relay mixes up conversations",
    ),
    Reason.NO_GRANT: Remedy(
        "the sender has no active relation with this agent",
        f"{WAIT} when the relation is established or restored at the relay; otherwise drop it",
    ),
    Reason.NO_SCOPE: Remedy(
        "the relation does not cover what the message asks for",
        f"{WAIT} when the relation's scopes change; otherwise drop it",
    ),
    Reason.UNKNOWN_SENDER: Remedy(
        "the sending device is not among those that the relay shows for the sender",
        f"{WAIT} when the device is listed; of a group's member: retry when the relay shows the member's devices",
    ),
    Reason.KEY_CHANGED: Remedy(
        "the sender shows other keys than the pinned ones, and you have not decided",
        f"compare fingerprints, then hashee-agent grants accept or refuse; {WAIT} after that",
    ),
    Reason.BAD_SIGNATURE: Remedy(
        "it was not signed with the sender's pinned keys",
        f"if the sender has new keys, {WAIT} when the relation shows them; otherwise it is a forgery: drop it",
    ),
    Reason.STALE: Remedy(
        "in a group: it is so old that nobody can tell any more whether it was read before",
        "drop it; the sender can say it again",
    ),
    Reason.NO_SESSION: Remedy(
        "it was encrypted in a session that is not known here, as after a lost store",
        f"a new session was offered to the sender; {WAIT} when one begins, but what the lost session held stays lost: "
        "ask the sender to say it again, then drop it",
    ),
    Reason.UNKNOWN_PREKEY: Remedy(
        "it begins a session with a prekey that is not there any more",
        f"a new session was offered to the sender; {WAIT} when one begins; then ask for it again and drop it",
    ),
    Reason.UNKNOWN_GROUP_KEY: Remedy(
        "the group's key of this version did not come, or may not be accepted",
        f"{WAIT} when an acceptable key comes; the log says why one was refused",
    ),
    Reason.TOO_MANY_SKIPPED: Remedy(
        "more messages than are kept for were missing before it",
        "a new session was offered to the sender; ask for it again and drop it",
    ),
    Reason.KEY_USED: Remedy(
        "its message key was used already: a copy, or a device that fell back to an old state",
        "a new session was offered to the sender; ask for it again and drop it",
    ),
    Reason.BAD_CIPHERTEXT: Remedy(
        "it was changed on its way, or the two sides are out of step",
        "ask the sender to say it again, then drop it",
    ),
    Reason.BAD_PADDING: Remedy(
        "it was decrypted, and its padding is not the protocol's",
        "look at it with show --plaintext; the sender's client is at fault; drop it",
    ),
    Reason.BAD_PAYLOAD: Remedy(
        "it was decrypted, and what is in it is no payload",
        "look at it with show --plaintext; the sender's client is at fault; drop it",
    ),
}

HANDLER_REASON = "any other code"
REFUSED_CODE = "refused_CODE"

DEAD: Mapping[str, Remedy] = {
    "handler_error": Remedy(
        "the handler raised an exception, also in the last of its tries (HASHEE_RETRY_SECONDS)",
        "the log has the exception's type and place; mend the handler, hashee-agent reload, then retry",
    ),
    "bad_state": Remedy(
        "the state of its conversation does not fit the agent's state class, or a value of the store the type that the handler asks for; nothing was overwritten",
        "the log names the field, or the key; give it its former type and the new one another name, hashee-agent reload, then retry",
    ),
    "state_too_large": Remedy(
        "the handler left more than 64 KiB in the state of its conversation; the former state stays",
        "keep less in it, hashee-agent reload, then retry",
    ),
    "state_in_tool": Remedy(
        "a tool of a language model has changed the state, which a later run of the message would not have",
        "let the tool change the store (store.change), or return what the handler is to change; hashee-agent reload, then retry",
    ),
    "store_in_tool": Remedy(
        "a tool of a language model has written the store with the end of the message (set, add)",
        "let it use store.change, which is written at once; hashee-agent reload, then retry",
    ),
    "store_limit": Remedy(
        "the handler gave the store a key or a value that it does not take",
        "the log says which bound; mend the handler, hashee-agent reload, then retry",
    ),
    "store_full": Remedy(
        "the store has 10,000 keys or 4 MiB, and takes no more; nothing of the run was written",
        "take away what is not needed (store.set(key, None)), then retry",
    ),
    "waits_full": Remedy(
        "all open questions of the agent have 64 MiB together, and take no more; nothing of the run was written",
        "ask with a shorter timeout and let steps return less (hashee-agent status shows how much there is), then retry",
    ),
    "llm_refused": Remedy(
        "the language model's endpoint refused the request (HTTP status 400, 401, 403, 404, …)",
        "the log has the status and what helps; mend it, hashee-agent reload, then retry",
    ),
    "llm_busy": Remedy(
        "the endpoint was busy for HASHEE_LLM_WAIT_SECONDS",
        "retry when it has room; raise its limits or the wait",
    ),
    "llm_unreachable": Remedy(
        "the endpoint could not be reached, or failed, four times within half a minute",
        "look at the endpoint and OPENAI_BASE_URL, then retry",
    ),
    "llm_cut": Remedy(
        "the model's answer broke off, told an error, or was empty, four times within half a minute",
        "look at the endpoint's log, then retry",
    ),
    "llm_misfit": Remedy(
        "the model's answer was no value of the type that the handler asked for (`llm.complete`), twice",
        "ask for less, or by another model, hashee-agent reload, then retry",
    ),
    "llm_no_pictures": Remedy(
        "the model takes no pictures, or none of this type",
        "name one that does (HASHEE_LLM_MODEL), or have the handler catch LLMNoPictures, hashee-agent reload, then retry",
    ),
    "llm_too_long": Remedy(
        "the conversation is longer than the model's context, also without its older half",
        "set HASHEE_LLM_HISTORY_TOKENS lower or give the model more context, hashee-agent reload, then retry",
    ),
    "file_broken": Remedy(
        "a file was not what its message said: changed, cut, of another conversation or size, or without a key",
        "ask for it to be sent again; drop it",
    ),
    "file_gone": Remedy(
        "the relay has a file no longer",
        "ask for it to be sent again; drop it",
    ),
    "file_too_large": Remedy(
        "a file over 100 MB, or over what the handler takes into memory (`bytes(most=…)`)",
        "read it by chunks() or save(), send less; then retry",
    ),
    "file_not_text": Remedy(
        "a file that is no text in UTF-8 was read by texts()",
        "have the handler say which files it reads, hashee-agent reload, then retry",
    ),
    "file_daily_limit": Remedy(
        "over 1 GB of files in a day (UTC), by the worker's count or the relay's word",
        "retry tomorrow",
    ),
    "file_refused": Remedy(
        "the relay or the file gate refused a file for good",
        "the log has the gate's word for why; mend that, then retry",
    ),
    "files_off": Remedy(
        "no file gate was named (HASHEE_FILES_URL), its certificate is refused, or it does not know this worker: another bus key, or clocks that differ by "
        "more than a minute",
        "the log says which; mend it, then retry",
    ),
    "files_unreachable": Remedy(
        "the file gate or the relay could not be used for a minute, in each of the tries",
        "look at the gate and its log (hashee-agent status), then retry: an upload goes on where it was",
    ),
    "spool_full": Remedy(
        "sealed files on their way out had no room: HASHEE_SPOOL_MB, or the disk",
        "make room, or give them more, then retry",
    ),
    "spool_unusable": Remedy(
        "the folder for sealed files (HASHEE_SPOOL_DIR) could not be made or written",
        "the log names it and the reason; mend it, then retry",
    ),
    "file_not_saved": Remedy(
        "a file could not be written where the handler saves it",
        "the log says why; mend it, then retry",
    ),
    "bad_file": Remedy(
        "the handler sends something that cannot be a file: no name, another type, a path that is not there, a file that changes while it is read",
        "the log says what; mend the handler, hashee-agent reload, then retry",
    ),
    "timeout": Remedy(
        "one run took longer than HASHEE_JOB_SECONDS",
        "make the handler faster or the limit longer, then retry",
    ),
    "poison": Remedy(
        "two workers died while they ran it, the second with nothing else in hand",
        "find out what in it ends the process (hashee-agent status, its last words) before you retry",
    ),
    "deliveries": Remedy(
        "it was handed out 20 times, by deaths, lost leases or Retry, and never came to an end",
        "look for what ends the workers, then retry",
    ),
    "journal_full": Remedy(
        "the results of the handler's steps (`job.step`) and its model's answers have 1 MiB together, and take no more",
        "let its steps return less, or keep it elsewhere and return where; ask the model for fewer or shorter answers; hashee-agent reload, then retry",
    ),
    "outcome_unknown": Remedy(
        "a step that may be done once (`job.once`) had begun when its worker died, or Redis went back since its message was taken in",
        "look at the other side whether it was done; a retry does all else and says `outcome_unknown` again, unless the handler catches "
        "OutcomeUnknown",
    ),
    "diverged": Remedy(
        "a handler that went on with an answer did not come to the question that was answered: its code is another than the one that asked",
        "give it its question again, or another version of the agent, then retry: it goes on with the answer",
    ),
    "handler_gone": Remedy(
        "the handler that asked a question is no longer there, and the question was answered",
        "bring the handler back under its name, then retry: it goes on with the answer",
    ),
    "changed": Remedy(
        "what the handler keeps was changed by others whenever it was to be written, twenty times",
        "find what writes it all the time, then retry",
    ),
    "retry_asked": Remedy(
        "the handler asked for another try (Retry) when there was none left",
        "mend what the handler waits for, then retry",
    ),
    "gone_at_relay": Remedy(
        "it was to wait at the relay, since its sender had too much waiting or was not known yet, and the relay has it no more",
        "its content is lost: ask the sender to say it again, then drop it",
    ),
    "handler_refused": Remedy("the handler raised Fail without a reason", "the handler knows why; retry or drop"),
    HANDLER_REASON: Remedy("the handler raised Fail with this reason", "the handler knows why; retry or drop"),
    "lost": Remedy(
        "it was handled together with a message whose job somebody has taken out of Redis",
        "retry",
    ),
    "unreadable_record": Remedy(
        "what stands in Redis does not open: it is damaged, or of another store secret or version",
        "with the right secret and version retry; otherwise drop it",
    ),
    "no_grant": Remedy(
        "a reply to somebody who may not be written to: the relation is not active, or changed keys wait for a decision",
        "restore the relation, or decide (hashee-agent grants), then retry",
    ),
    "too_large": Remedy(
        "a reply that does not fit into an envelope of 1 MiB",
        "the handler must send less or a file; retry does not help: drop it",
    ),
    "no_usable_device": Remedy(
        "a reply to somebody none of whose devices has usable keys",
        "retry when the person has opened their client again",
    ),
    "no_group_key": Remedy(
        "a reply to a group whose key is not known here, or does not include this agent",
        "retry when a member has made a key that does",
    ),
    "recall_too_late": Remedy(
        "a handler took back what was acknowledged more than 2 minutes ago, or was never sent",
        "nothing: the person has it; drop it",
    ),
    "recall_unanswered": Remedy(
        "the relay did not say within 5 s whether it took a message back",
        "retry asks it once more, within the 2 minutes",
    ),
    "payload_without_json_form": Remedy(
        "a reply with something in it that JSON does not have",
        "mend the handler; retry does not help: drop it",
    ),
    REFUSED_CODE: Remedy(
        "the relay refused for good what was sent, with this code",
        "the code says why; when that is mended retry sends the same bytes",
    ),
}


def quarantine_remedy(reason: str) -> Remedy:
    """Returns meaning and remedy of a quarantine reason as it stands in Redis."""
    try:
        return QUARANTINE[Reason(reason)]
    except (ValueError, KeyError):
        return Remedy("a reason of another version of this program", "retry; otherwise drop it")


def dead_remedy(reason: str, *, is_committed: bool) -> Remedy:
    """Returns meaning and remedy of a dead letter's reason; a committed send can only be refused by the relay."""
    if is_committed:
        return DEAD[REFUSED_CODE]
    return DEAD.get(reason, DEAD[HANDLER_REASON])
