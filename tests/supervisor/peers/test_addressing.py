"""For whom an envelope may be, by its version, its `to`, the pins and the relay's word (PROTOCOL §5, §5.1)."""

import pytest

from bus.steps.store import ConversationSnapshot
from crypto.envelope import V1, V1_1, Envelope
from crypto.errors import Reason, Unreadable
from supervisor.peers.addressing import check_addressed
from supervisor.relay.frames import ArtifactResponse, MessageNew

pytestmark = pytest.mark.pure

AGENT, ADA, BOB, GROUP, OTHER_GROUP = "agent", "ada", "bob", "group", "other-group"


def envelope(*, version: str = V1, to: str = AGENT, sender: str = ADA) -> Envelope:
    return Envelope(version, "conversation", to, sender, "device", "cmid", b"", b"", (), b"", b"")


def frame(told: str | None) -> MessageNew:
    return MessageNew("conversation", "m1", ADA, "human", "text", "", 1, "2026-01-01T00:00:00Z", told)


def snapshot(kind: str | None = None, person: str | None = None) -> ConversationSnapshot:
    return ConversationSnapshot(False, 1, 0, 0, None, 0, kind, person)


UNPINNED, OF_ADA, OF_THE_GROUP = snapshot(), snapshot("h2a", ADA), snapshot("group", GROUP)


def refused(told: str | None, what: Envelope, known: ConversationSnapshot) -> Reason | None:
    try:
        check_addressed(frame(told), what, known, AGENT)
    except Unreadable as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("told", "what", "known"),
    [
        ("h2a", envelope(), UNPINNED),
        ("h2a", envelope(), OF_ADA),
        (None, envelope(), OF_ADA),
        ("of a later relay", envelope(), OF_ADA),
        ("group", envelope(version=V1_1, to=GROUP), UNPINNED),
        ("group", envelope(version=V1_1, to=GROUP, sender=BOB), OF_THE_GROUP),
        (None, envelope(version=V1_1, to=GROUP), UNPINNED),
    ],
)
def test_what_is_for_us(told: str | None, what: Envelope, known: ConversationSnapshot) -> None:
    assert refused(told, what, known) is None


@pytest.mark.parametrize(
    ("told", "what", "known"),
    [
        pytest.param("h2a", envelope(to=BOB), UNPINNED, id="to-somebody-else"),
        pytest.param("h2a", envelope(to=GROUP), UNPINNED, id="to-a-group-by-a-persons-version"),
        pytest.param("h2a", envelope(sender=AGENT), UNPINNED, id="our-own"),
        pytest.param("h2a", envelope(sender=BOB), OF_ADA, id="another-person"),
        pytest.param("h2h", envelope(), OF_ADA, id="the-relay-says-another-kind"),
        pytest.param("group", envelope(version=V1_1), UNPINNED, id="a-groups-version-to-the-agent"),
        pytest.param("group", envelope(version=V1_1, to=OTHER_GROUP), OF_THE_GROUP, id="another-group"),
        pytest.param("group", envelope(version=V1_1, to=GROUP, sender=AGENT), OF_THE_GROUP, id="our-own-in-a-group"),
    ],
)
def test_what_is_not_for_us(told: str | None, what: Envelope, known: ConversationSnapshot) -> None:
    assert refused(told, what, known) is Reason.NOT_FOR_US


@pytest.mark.parametrize(
    ("told", "what", "known"),
    [
        pytest.param("h2a", envelope(version=V1_1, to=GROUP), UNPINNED, id="a-groups-version-elsewhere"),
        pytest.param("group", envelope(), UNPINNED, id="a-persons-version-in-a-group"),
        pytest.param("h2a", envelope(), OF_THE_GROUP, id="the-pin-counts-more-than-the-relays-word"),
        pytest.param("group", envelope(version=V1_1, to=GROUP), OF_ADA, id="of-a-person-too"),
    ],
)
def test_a_version_that_its_kind_of_conversation_does_not_have(
    told: str, what: Envelope, known: ConversationSnapshot
) -> None:
    assert refused(told, what, known) is Reason.UNSUPPORTED_VERSION


def test_an_artifact_response_says_no_kind_and_is_judged_like_a_message() -> None:
    answer = ArtifactResponse("conversation", "m1", ADA, "", 1, "2026-01-01T00:00:00Z")
    check_addressed(answer, envelope(), OF_ADA, AGENT)
    with pytest.raises(Unreadable):
        check_addressed(answer, envelope(sender=BOB), OF_ADA, AGENT)
