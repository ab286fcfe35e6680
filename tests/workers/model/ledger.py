"""What happened in a play, and what may have: the reference that it is judged by.

Everything that happens has a number. Who said what and what became of it is told by tags and texts that nobody else uses.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from bus.records.records import Job, Reply
from bus.steps.job_steps import APOLOGY_PLACE, Finished
from bus.steps.policies import Busy
from bus.steps.thread_steps import Bound, Noted
from tests.workers.model.agents import Deeds
from workers.kept.words import Words
from workers.talk.progress import BLOCK

_WORDS = Words()
NOT_ASKED, NOT_OPEN, OTHER_QUESTION = _WORDS.not_asked, _WORDS.not_open, _WORDS.other_question
REFUSALS = (NOT_ASKED, NOT_OPEN, OTHER_QUESTION)
COMMANDS = ("book", "confirm", "plan", "swallow", "export", "hasty")

NEVER = "never mind, (timeout|cancelled)"

# What a thread may have said in the end, each thing once and in this order, without tags.
GRAMMARS = {
    "book": rf"(full )?name\?;({NEVER}|hello (?P<name>\w+), (?P<number>\d+), (?P<before>\d+ before);book for (?P=name)\?;"
    rf"({NEVER}|(unknown;)?(not )?booked, (?P=number), \d+, (?P=before)));",
    "confirm": rf"really\?;({NEVER}|(not )?booked);",
    "plan": rf"sure\?;(hello \w+|{NEVER});",
    "swallow": rf"swallowed\?;(hello (?!nobody)\w+|{NEVER});",
    "export": rf"exporting;(on its way;)?(?P<how>stopped|exported);why\?;((?P=how), {NEVER}|hello \w+, (?P=how));",
    "hasty": r"refused;",
}


SUPERSEDED = r"(exporting;(on its way;)?((stopped|exported);)?)?"
"""What a thread may have said that a later message has superseded: before it has asked, and what it says with its question comes with that."""


@dataclass(frozen=True)
class Said:
    """What a person has sent. `card`: of an answer to a card; `is_yes`, `is_right`: an approval's answer, and whether it names its hash."""

    id: str
    conversation: str
    who: str
    at: int
    text: str = ""
    card: str = ""
    is_yes: bool = False
    is_right: bool = True

    def __str__(self) -> str:
        return (
            self.text
            or f"{'yes' if self.is_yes else 'no'} to {self.card[-6:]}{'' if self.is_right else ', wrong hash'}"
        )

    @property
    def command(self) -> str:
        return self.text[1:].split()[0] if self.text.startswith("/") and self.text != "/cancel" else ""

    @property
    def tag(self) -> str:
        return self.text.split()[-1]


@dataclass(frozen=True)
class Heard:
    """What people got: by which job or thread, at which place, when."""

    conversation: str
    job_id: str
    place: str
    at: int
    reply: Reply

    @property
    def artifact(self) -> dict[str, object]:
        found = self.reply.payload.get("artifact")
        return found if isinstance(found, dict) else {}

    @property
    def is_update(self) -> bool:
        return "ref_artifact" in self.reply.payload

    @property
    def card_id(self) -> str:
        return str(self.artifact.get("artifact_id", ""))

    @property
    def is_bar(self) -> bool:
        """A progress with a Stop button, as it was first shown."""
        return bool(self.inner.get("actions")) and not self.is_update

    @property
    def inner(self) -> dict[str, object]:
        found = self.artifact.get("payload")
        return found if isinstance(found, dict) else {}

    @property
    def text(self) -> str:
        return (
            str(self.reply.payload.get("text", ""))
            or str(self.inner.get("body", ""))
            or str(self.artifact.get("title", ""))
        )


@dataclass
class Asked:
    """A question that somebody sees."""

    thread: Said
    shown: Heard
    who: str
    waits_from: int
    """When its wait was stored."""

    @property
    def is_card(self) -> bool:
        return bool(self.shown.card_id)


@dataclass
class Ledger:
    """`busy`: what becomes of a message that comes while another is handled."""

    deeds: Deeds
    busy: Busy = "queue"
    has_versions: bool = False
    now: int = 0
    trace: list[str] = field(default_factory=list)
    said: dict[str, Said] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    ids: set[tuple[str, str]] = field(default_factory=set)
    waited: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of each thread, when it was stored that it waits."""

    fired: dict[str, int] = field(default_factory=dict)
    """When the deadline of a thread's question was over."""

    quiet: dict[str, str] = field(default_factory=dict)
    """Of a thread that has ended without a word since nobody answered, the word."""

    deaths: int = 0

    faults: list[str] = field(default_factory=list)

    def happens(self, what: str) -> int:
        self.now += 1
        self.trace.append(what)
        return self.now

    def fault(self, what: str) -> None:
        self.faults.append(what)

    # As it happens

    def saw(self, name: str, job: Job, arguments: tuple[object, ...], answer: object) -> None:
        at = self.happens(f"{name} {job.job_id}: {_in_words(answer)}")
        if name == "note" and answer is Noted.NOTED and arguments[0] == "number#1":
            self.deeds.noted.add(self.said[job.thread_id].tag)
        if name == "note" and answer is Noted.NOTED and str(arguments[0]).startswith(BLOCK):
            self.deeds.ended.add(self.said[job.thread_id].tag)
        if name == "settle" and answer is Finished.DONE and arguments[0] == "waiting":
            self.waited[job.thread_id].append(at)
        if name == "settle" and answer is Finished.DONE and arguments[0] == "no_answer":
            self.quiet[job.thread_id] = f"never mind, {'timeout' if job.kind == 'deadline' else 'cancelled'}"
        if name == "bind_wait" and answer is Bound.BOUND:
            self.trace[-1] += f" to {job.message.text or 'a card'}"

    def hears(self, conversation: str, job_id: str, place: str, reply: Reply) -> None:
        if (job_id, place) in self.ids:
            self.fault(f"{job_id} says twice what it says at {place}")
            return
        self.ids.add((job_id, place))
        heard = Heard(conversation, job_id, place, self.happens(""), reply)
        self.trace[-1] = f"{conversation} hears {heard.text!r} ({job_id} {place})"
        self.heard.append(heard)

    def by(self, job_id: str) -> list[Heard]:
        """What a job or thread has said; updates of cards and apologies are not told."""
        return [one for one in self.heard if one.job_id == job_id and one.place != APOLOGY_PLACE and not one.is_update]

    def tag_of_card(self, card_id: str) -> str:
        [shown] = [one for one in self.heard if one.card_id == card_id]
        return self.said[shown.job_id].tag

    @property
    def threads(self) -> list[Said]:
        return [one for one in self.said.values() if one.command in COMMANDS]

    def story(self, thread: Said) -> list[str]:
        """What a thread has said, without its tag."""
        lines = [one.text.removeprefix(f"{thread.tag}: ") for one in self.by(thread.id)]
        return [*lines, *([self.quiet[thread.id]] if thread.id in self.quiet else [])]

    def was_taken_for_words(self, thread: Said) -> bool:
        """By a version that has no such command."""
        return self.story(thread) == [f"hm: {thread.text}"]

    def who_is_asked(self, thread: Said) -> str:
        return "ben" if thread.command == "book" and "ben" in thread.text.split() else thread.who

    def questions(self) -> list[Asked]:
        """All that were shown, and whose wait is stored."""
        found = []
        for thread in self.threads:
            shown = [one for one in self.by(thread.id) if one.text.endswith("?")]
            for one, waits_from in zip(shown, self.waited[thread.id], strict=False):
                found.append(Asked(thread, one, self.who_is_asked(thread), waits_from))
        return found

    def next_line(self, asked: Asked) -> str:
        """What a thread said next after its question; '' if nothing yet."""
        lines = self.by(asked.thread.id)
        behind = [one.text.removeprefix(f"{asked.thread.tag}: ") for one in lines[lines.index(asked.shown) + 1 :]]
        return behind[0] if behind else self.quiet.get(asked.thread.id, "")

    def open_questions(self) -> list[Asked]:
        return [one for one in self.questions() if not self.next_line(one)]

    # In the end

    def check(self, done: dict[str, Sequence[tuple[str, int]]], ended: int, kept: Sequence[str]) -> None:
        """`done`: the state of each conversation; `ended`: the number in the store; `kept`: all that was said, as it is kept."""
        self._check_threads(done, ended)
        self._check_revisions()
        self._check_history(kept)
        self._check_words()
        self._check_cards()

    def _check_threads(self, done: dict[str, Sequence[tuple[str, int]]], ended: int) -> None:
        for thread in self.threads:
            if self.was_taken_for_words(thread):
                continue
            story = "".join(f"{line};" for line in self.story(thread))
            if re.fullmatch(SUPERSEDED, story) and self._may_be_superseded(thread):
                continue
            if not story and thread.command == "swallow" and self.has_versions:
                continue
            if not re.fullmatch(GRAMMARS[thread.command], story):
                self.fault(f"{thread.tag} said: {story}")
                continue
            reminders = Counter(one.text for one in self.heard if one.text.endswith(f"{thread.tag}: reminded"))
            if thread.command == "plan" and reminders != Counter(
                [f"{thread.tag}: reminded", f"keyed {thread.tag}: reminded"]
            ):
                self.fault(f"{thread.tag}: reminded {dict(reminders)}")
            booked, was_unknown = self.deeds.booked[thread.tag], "unknown" in story
            if thread.command == "book" and booked != (";booked" in story) and not was_unknown:
                self.fault(f"{thread.tag}: booked {booked} times, and said: {story}")
            if was_unknown and not self.deaths:
                self.fault(f"{thread.tag}: nobody has died, and nobody knows what became of it")
        found = Counter(f"{tag} {number}" for entries in done.values() for tag, number in entries)
        expected = Counter(f"{one.tag} {number}" for one in self.threads for number in self._numbers(one))
        if found != expected:
            self.fault(f"the state has {sorted(found.elements())}, threads have said {sorted(expected.elements())}")
        counts = [int(line.split(", ")[2]) for one in self.threads for line in self.story(one) if "booked, " in line]
        if sorted(counts) != list(range(1, ended + 1)):
            self.fault(f"the store counts {ended} threads, and they were told {sorted(counts)}")

    def _check_revisions(self) -> None:
        """A card changes from one revision to the next."""
        seen = Counter[str]()
        for one in self.heard:
            if one.is_update:
                card = str(one.reply.payload["ref_artifact"])
                if one.reply.payload["based_on_revision"] != seen[card]:
                    self.fault(
                        f"an update is based on revision {one.reply.payload['based_on_revision']}, and {seen[card]} was seen"
                    )
                seen[card] += 1

    def _check_history(self, kept: Sequence[str]) -> None:
        """What was said is kept once."""
        times, heard = Counter(kept), Counter(one.text for one in self.heard)
        for text, count in heard.items():
            is_kept = re.match(r"hm: |(keyed )?t\d+: (hello|booked|not booked|reminded)", text)
            if is_kept and times[text] != count:
                self.fault(f"{text!r} was said {count} times, and is kept {times[text]} times")
        for asked in self.questions():
            is_over = asked.thread.id not in self.quiet and re.search("^hello |never mind", self.next_line(asked))
            if not asked.is_card and times[asked.shown.text] != bool(is_over):
                self.fault(f"{asked.shown.text!r} is kept {times[asked.shown.text]} times")

    def check_open(self, most: int) -> None:
        """So many questions may be open in a conversation."""
        for name, count in Counter(one.thread.conversation for one in self.open_questions()).items():
            if count > most:
                self.fault(f"{count} questions are open in {name}")

    def _numbers(self, thread: Said) -> list[str]:
        return [line.split(", ")[1] for line in self.story(thread) if re.match(r"(not )?booked, ", line)]

    def _may_be_superseded(self, thread: Said) -> bool:
        later = [
            one
            for one in self.said.values()
            if one.conversation == thread.conversation and one.at > thread.at and not one.card
        ]
        return self.busy == "interrupt" and bool(later)

    def _check_words(self) -> None:
        """Each text is an answer to one question, or is answered once, by itself or together with others; and is no answer to what came later."""
        echoed = Counter(word for one in self.heard if one.text.startswith("hm: ") for word in one.text[4:].split("+"))
        used: dict[str, Asked] = {}
        for asked in self.questions():
            if (found := re.match(r"hello (\w+)", self.next_line(asked))) is None or asked.is_card:
                continue
            word = found[1]
            if word in used:
                self.fault(f"{word} has answered two questions")
            used[word] = asked
        cancels = [one for one in self.said.values() if one.text == "/cancel"]
        cancelled = [one for one in self.questions() if self.next_line(one).endswith(", cancelled")]
        if len(cancels) != echoed["/cancel"] + len(cancelled) and self.busy != "interrupt":
            self.fault(
                f"{len(cancels)} times /cancel, {len(cancelled)} questions were cancelled, {echoed['/cancel']} were words"
            )
        for one in self.said.values():
            if one.text == "/cancel" and self.by(one.id) and (open_then := self._open_to(one, used)):
                self.fault(f"/cancel {one.id} was words, and {open_then[-1].shown.text!r} was open")
            if one.card or one.text == "/cancel" or one.command:
                continue
            times = echoed[one.text] + (one.text in used)
            open_then = self._open_to(one, used)
            if times > 1 or (times == 0 and (open_then or not self._may_be_superseded(one))):
                self.fault(f"{one.text} of {one.who} was heard {times} times")
            if open_then and echoed[one.text]:
                self.fault(f"{one.text} of {one.who} was words, and {open_then[0].shown.text!r} was open")
            answered = used.get(one.text)
            if answered is not None and one.who != answered.who:
                self.fault(f"{one.text} of {one.who} answered {answered.shown.text!r}, which is for {answered.who}")
            if answered is not None and one.at < answered.waits_from:
                self.fault(f"{one.text} was waiting already when {answered.shown.text!r} was asked, and answered it")
            if answered is not None and open_then and open_then[-1].waits_from > answered.waits_from:
                self.fault(f"{one.text} answered {answered.shown.text!r}, and {open_then[-1].shown.text!r} is newer")

    def _open_to(self, said: Said, used: dict[str, Asked]) -> list[Asked]:
        """The text questions that were certainly open to who said it, when it came in and when it was looked at; the newest last."""
        found = []
        for asked in self.questions():
            if (
                asked.is_card
                or asked.thread.conversation != said.conversation
                or asked.who != said.who
                or asked.shown.at > said.at
            ):
                continue
            line = self.next_line(asked)
            if line.endswith(", timeout"):
                until = self.fired.get(asked.thread.id, 0)
            elif line.endswith(", cancelled"):
                until = min((one.at for one in self._cancels() if one.at > asked.thread.at), default=0)
            else:
                until = min((one.at for one in self.said.values() if used.get(one.text) is asked), default=0)
            if said.at < until:
                found.append(asked)
        return sorted(found, key=lambda one: one.waits_from)

    def _cancels(self) -> list[Said]:
        """Those that cancelled a question."""
        return [one for one in self.said.values() if one.text == "/cancel" and not self.by(one.id)]

    def _check_cards(self) -> None:
        """Each answer to a card is taken, the first of those that may be, or is told why not."""
        cards = {one.shown.card_id: one for one in self.questions() if one.is_card}
        taken: dict[str, list[Said]] = defaultdict(list)
        for one in self.said.values():
            if not one.card:
                continue
            words, why = [heard.text for heard in self.by(one.id)], self._why_refused(one, cards.get(one.card))
            if not words:
                taken[one.card].append(one)
            elif len(words) > 1 or words[0] not in (why, NOT_OPEN):
                self.fault(f"the answer {one.id} to a card was told {words}, and not {why!r}")
        for card, answers in taken.items():
            if card not in cards or len(answers) > 1:
                self.fault(f"{[one.id for one in answers]} were taken for answers to one card")
            else:
                self._check_answer(cards[card], answers[0])
        for asked in cards.values():
            self._check_asked(asked, taken[asked.shown.card_id])

    def _check_answer(self, asked: Asked, answer: Said) -> None:
        """`answer` was taken."""
        line = self.next_line(asked)
        if self._why_refused(answer, asked) or "mind" in line or answer.is_yes == ("not booked" in line):
            self.fault(f"{answer.id} was taken for an answer to {asked.shown.text!r}: {line}")
        if earlier := [one for one in self._right_answers(asked) if one.at < answer.at]:
            self.fault(f"{answer.id} was taken for the answer to {asked.shown.text!r}, and {earlier[0].id} came first")

    def _check_asked(self, asked: Asked, taken: list[Said]) -> None:
        line = self.next_line(asked)
        if re.match("(not )?booked|unknown", line) and not taken:
            self.fault(f"{asked.shown.text!r} was answered by nobody: {line}")
        in_time = [one for one in self._right_answers(asked) if one.at < self.fired.get(asked.thread.id, 0)]
        if line.endswith(", timeout") and in_time:
            self.fault(f"{in_time[0].id} answered {asked.shown.text!r} in time, and it is over")

    def _right_answers(self, asked: Asked) -> list[Said]:
        return [
            one for one in self.said.values() if one.card == asked.shown.card_id and not self._why_refused(one, asked)
        ]

    def _why_refused(self, said: Said, asked: Asked | None) -> str:
        if asked is None:
            return NOT_OPEN
        if said.who != asked.who:
            return NOT_ASKED
        return "" if said.is_right else OTHER_QUESTION


def _in_words(answer: object) -> str:
    if isinstance(answer, list):
        return str(len(answer))
    if isinstance(answer, msgspec.Struct):
        return str(getattr(answer, "outcome", type(answer).__name__))
    return str(getattr(answer, "name", answer)).lower()
