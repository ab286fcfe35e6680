"""Where a file may go: the relay's own origin with the token, a presigned public one without, and nowhere else."""

import pytest

from bus.files.calls import CallFailure
from supervisor.files.failures import CallFailed
from supervisor.files.upload_urls import Origins, is_public

pytestmark = pytest.mark.pure

ORIGINS = Origins("https://relay.example", frozenset({"minio.lan:9000", "storage.lan", "localhost:9000"}))


@pytest.mark.parametrize(
    "url",
    [
        "/agents/A/files/U/upload",
        "https://relay.example/x",
        "https://relay.example:443/x",
        "https://RELAY.example/x?y=%2F",
    ],
)
def test_a_path_and_the_relays_own_origin_get_the_token(url: str) -> None:
    to = ORIGINS.destination(url)
    assert (to.is_relay, to.host, to.port) == (True, "relay.example", 443)


def test_a_path_stays_behind_the_relays_host_and_port() -> None:
    assert Origins("http://127.0.0.1:8000").destination("/x").url == "http://127.0.0.1:8000/x"


@pytest.mark.parametrize(
    "url", ["https://bucket.storage.example/x?sig=1", "https://storage.lan/x", "https://minio.lan:9000/x"]
)
def test_another_host_is_presigned(url: str) -> None:
    assert not ORIGINS.destination(url).is_relay


def test_a_host_that_the_owner_named_may_have_any_address_and_no_other_port() -> None:
    assert ORIGINS.destination("https://minio.lan:9000/x").is_named
    assert ORIGINS.destination("https://storage.lan/x").is_named
    assert ORIGINS.destination("http://localhost:9000/x").is_named
    assert not ORIGINS.destination("https://minio.lan/x").is_named
    assert not ORIGINS.destination("https://bucket.storage.example/x").is_named


@pytest.mark.parametrize(
    "url",
    [
        *("//elsewhere/x", "///x", "", "x", "../x", "elsewhere.example/x", "/\\elsewhere/x", "/x\n", "/ü", "/x#y"),
        *(
            "http://relay.example/x",
            "ftp://relay.example/x",
            "ftp://localhost:9000/x",
            "file:///etc/passwd",
            "javascript:x",
            "https:relay.example",
        ),
        *("https://relay.example:8443/x", "https://relay.example:0x/x", "https://relay.example:99999/x"),
        *("https://user@relay.example/x", "https://relay.example@evil.example/x", "https://:p@relay.example/x"),
        *("http://storage.example/x", "http://minio.lan:9000/x", "https://storage.lan:9000/x", "https://[::1/x"),
        *("https:///x", "https://a_b c/x", "http://localhost:9001/x", "/" + "x" * 5000),
    ],
)
def test_whatever_else_the_relay_says_is_not_used(url: str) -> None:
    with pytest.raises(CallFailed) as failed:
        ORIGINS.destination(url)
    assert failed.value.failure is CallFailure.BAD_UPLOAD_URL


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",  # noqa: S104 - an address, and nothing listens
            "224.0.0.1",
        ),
        *("255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "fec0::1", "::ffff:10.0.0.1"),
        *(
            "::ffff:127.0.0.1",
            "2002:a00:1::1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "2001:0:1.2.3.4::1",
            "2002:101:101::1",
            "localhost",
            "",
        ),
    ],
)
def test_an_address_inside_of_a_network_is_not(address: str) -> None:
    assert not is_public(address)
