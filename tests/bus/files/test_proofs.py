"""A call to the file gate counts when its proof was made with the agent's key, for this call, now, and for the first time."""

import pytest

from bus.files.calls import CallFailure
from bus.files.proofs import CLOCKS_DIFFER_SECONDS, Call, FilesKey, ProofChecker

pytestmark = pytest.mark.pure

KEY = FilesKey.of_bus_key(bytes(range(32)))
NOW = 1_800_000_000.0
PUT = Call("PUT", "/v1/uploads/u-1", 1000, "ticket")


def proof(call: Call = PUT, *, key: FilesKey = KEY, at: float = NOW, nonce: str = "0" * 32) -> str:
    return key.prove(call, time_ms=round(at * 1000), nonce=nonce)


def failure(header: str, call: Call = PUT, *, now: float = NOW, checker: ProofChecker | None = None) -> str:
    refused = (checker or ProofChecker()).check(KEY, header, call, now)
    return "" if refused is None else refused.failure


def test_the_key_and_a_proof_are_what_both_sides_have_always_made() -> None:
    assert KEY.export().hex() == "48e837f982f2e921e86065c84cd6e7e91fd86e0825e01e49317771a6887e6057"
    assert (
        proof()
        == "1800000000000 00000000000000000000000000000000 9723344d4cbe9d263aba3d912d431090a4e0e53ee2f393997876bc3ba18d0332"
    )
    assert repr(KEY) == "FilesKey(…)"


def test_a_proof_counts_once() -> None:
    checker = ProofChecker()
    assert failure(proof(), checker=checker) == ""
    assert failure(proof(), checker=checker) == CallFailure.REPLAYED
    assert failure(proof(nonce="1" * 32), checker=checker) == ""


@pytest.mark.parametrize(
    "other",
    [
        Call("GET", PUT.target, PUT.content_length, PUT.bound),
        Call(PUT.method, "/v1/uploads/u-2", PUT.content_length, PUT.bound),
        Call(PUT.method, PUT.target, 1001, PUT.bound),
        Call(PUT.method, PUT.target, PUT.content_length, "another ticket"),
    ],
)
def test_a_proof_is_for_one_call(other: Call) -> None:
    assert failure(proof(), other) == CallFailure.BAD_PROOF


@pytest.mark.parametrize(
    "header", ["", "x", proof()[:-1], proof().upper(), f" {proof()}", proof() + "0", "٣" + proof()]
)
def test_what_is_no_proof_is_none(header: str) -> None:
    assert failure(header) == CallFailure.BAD_PROOF


def test_a_proof_of_another_key_is_none() -> None:
    assert failure(proof(key=FilesKey.of_bus_key(bytes(32)))) == CallFailure.BAD_PROOF


@pytest.mark.parametrize("seconds", [CLOCKS_DIFFER_SECONDS + 1, -CLOCKS_DIFFER_SECONDS - 1])
def test_a_proof_of_another_time_is_stale(seconds: float) -> None:
    assert failure(proof(at=NOW - seconds)) == CallFailure.STALE_PROOF
    assert failure(proof(at=NOW - seconds * 0.9)) == ""


def test_a_proof_that_came_early_is_remembered_until_it_would_be_stale() -> None:
    checker, early = ProofChecker(), proof(at=NOW + CLOCKS_DIFFER_SECONDS)
    assert failure(early, checker=checker) == ""
    assert failure(early, now=NOW + 2 * CLOCKS_DIFFER_SECONDS, checker=checker) == CallFailure.REPLAYED
    assert failure(early, now=NOW + 2 * CLOCKS_DIFFER_SECONDS + 1, checker=checker) == CallFailure.STALE_PROOF


def test_what_cannot_be_remembered_does_not_count_and_what_is_stale_makes_room() -> None:
    checker = ProofChecker(most_nonces=2)
    for nonce in ("1" * 32, "2" * 32):
        assert failure(proof(nonce=nonce), checker=checker) == ""
    assert failure(proof(nonce="3" * 32), checker=checker) == CallFailure.BUSY
    later = NOW + 2 * CLOCKS_DIFFER_SECONDS + 1
    assert failure(proof(at=later, nonce="3" * 32), now=later, checker=checker) == ""
