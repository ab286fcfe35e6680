"""What went wrong outside is said in the system's words, with what helps."""

import errno
import os
import ssl
from pathlib import Path

import pytest

from host.reasons import FORM_OF_AN_AUTHORITY, REMEDIES, fault_of_file, why
from tests.bus.transport.authority import Authority

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_a_fault_of_a_file_names_it_and_the_reason_and_what_helps(number: int) -> None:
    said = fault_of_file(OSError(number, os.strerror(number), "/some/file"))
    assert said == f"/some/file: {os.strerror(number)}; {REMEDIES[number]}"


def test_of_another_one_there_is_the_reason_alone() -> None:
    assert fault_of_file(OSError(errno.ENXIO, "No such device", "/f")) == "/f: No such device"
    assert fault_of_file(OSError(errno.ENXIO, "No such device"), "head") == "head: No such device"
    assert fault_of_file(TimeoutError()) == "a file: TimeoutError"


def handshake(authority: Authority) -> None:
    """Between two contexts in memory, as strict as Python is from 3.13 on. Raises SSLError."""
    ours, theirs = ssl.create_default_context(cafile=authority.certificate), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.verify_flags |= ssl.VERIFY_X509_STRICT
    theirs.load_cert_chain(*authority.sign("server"))
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = (
        ours.wrap_bio(here, there, server_hostname="127.0.0.1"),
        theirs.wrap_bio(there, here, server_side=True),
    )
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_an_authority_that_does_not_say_its_use_is_refused_with_what_it_lacks_and_what_helps(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        handshake(Authority(tmp_path, says_its_use=False))
    said = why(refused.value)
    assert said == (
        "TLS: the certificate is not accepted: CA cert does not include key usage extension; " + FORM_OF_AN_AUTHORITY
    )
    handshake(Authority(tmp_path))


def test_a_stranger_is_refused_without_that_advice(tmp_path: Path) -> None:
    own, stranger = tmp_path / "own", tmp_path / "stranger"
    own.mkdir()
    stranger.mkdir()
    other = Authority(stranger)
    other.certificate = Authority(own).certificate
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        handshake(other)
    assert FORM_OF_AN_AUTHORITY not in why(refused.value)
