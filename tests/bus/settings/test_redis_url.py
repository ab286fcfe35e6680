"""The Redis URL: what is connected to is what was parsed, what is not certain is refused, and nothing of it is ever shown."""

import logging
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError

from bus.settings.redis_url import BadRedisUrl, RedisAddress, parse_redis_url
from bus.transport.lua import Scripts
from bus.transport.wire import RedisRefused, RedisUnavailable, Wire, failure
from tests.redis_server import running_redis

PARTS = ("Tr0ub4dor", "S3cretTail", "s3crettail")


@pytest.mark.pure
@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://r", RedisAddress(host="r")),
        ("redis://r:6380/2", RedisAddress(host="r", port=6380, database=2)),
        ("redis://r/?db=3", RedisAddress(host="r", database=3)),
        ("redis://[::1]:7/0", RedisAddress(host="::1", port=7)),
        ("redis://u:p%40%23%2F@r:1/0", RedisAddress(host="r", port=1, username="u", password="p@#/")),
        ("rediss://:p:q@r", RedisAddress(host="r", password="p:q", tls={})),
        (
            "rediss://r?ssl_cert_reqs=none&ssl_check_hostname=false",
            RedisAddress(host="r", tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ),
        ("unix:///run/r.sock", RedisAddress(path="/run/r.sock")),
        (
            "unix://u@/a%20b.sock?password=w%26&db=1",
            RedisAddress(path="/a b.sock", database=1, username="u", password="w&"),
        ),
    ],
)
def test_what_a_url_means(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.pure
@pytest.mark.parametrize(
    "url",
    [
        "redis://:Tr0ub4dor@S3cretTail#9@127.0.0.1:6379/0",
        "redis://:Tr0ub4dor@S3cretTail:6379/0@127.0.0.1",
        "redis://:Tr0ub4dor/S3cretTail@127.0.0.1:6379/0",
        "redis://:Tr0ub4dor?S3cretTail@127.0.0.1:6379/0",
        "redis://S3cretTail:6379/Tr0ub4dor@127.0.0.1:6379/0",
        "redis://:Tr0ub4dor[S3cretTail@127.0.0.1",
        "redis://:Tr0ub4dor%zzS3cretTail@127.0.0.1",
        "redis://r:0/0",
        "redis://r:65536/0",
        "redis://r/one",
        "redis://r/1?db=2",
        "redis://r?sll_cert_reqs=none",
        "redis://r?ssl_cert_reqs=none",
        "rediss://r?ssl_cert_reqs=S3cretTail",
        "rediss://r?ssl_ca_certs=/nowhere/S3cretTail",
        "rediss://r?ssl_ca_certs=relative",
        "redis://r?db",
        "redis://r?db=1&db=2",
        "redis://r?socket_timeout=5",
        "redis://[::z]",
        "redis://",
        "redis:///0",
        "unix://relative",
        "unix://u:p@/r.sock?password=x",
        "http://r",
        " redis://r",
        "redis://r\n",
    ],
)
def test_what_is_not_certain_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(BadRedisUrl) as refused:
        parse_redis_url(url)
    assert not any(part in str(refused.value) for part in PARTS)
    assert refused.value.__cause__ is None


@pytest.mark.pure
@given(st.text(alphabet="ab1:@/?#[]%&= é", max_size=12))
def test_no_password_is_ever_taken_for_a_host(password: str) -> None:
    try:
        address = parse_redis_url(f"redis://:{password}@127.0.0.1:6379/0")
    except BadRedisUrl:
        return
    assert (address.host, address.port, address.database) == ("127.0.0.1", 6379, 0)
    assert "@" not in password


@pytest.mark.pure
def test_neither_user_nor_password_are_in_what_may_be_shown() -> None:
    address = parse_redis_url("redis://Tr0ub4dor:S3cretTail@r:1/0")
    assert address.shown == "r:1"
    assert not any(part in repr(address) for part in PARTS)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_connection_that_fails_is_told_in_our_words(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    wire = Wire(f"{scheme}://Tr0ub4dor:S3cretTail@127.0.0.1:{port}/0", Scripts.load(), answer_timeout_seconds=2.0)
    with pytest.raises(RedisUnavailable) as failed:
        wire.call([("PING",)])
    assert str(failed.value) == f"127.0.0.1:{port}: Connection refused"
    wire = Wire("redis://Tr0ub4dor:S3cretTail@nowhere.invalid:1/0", Scripts.load(), answer_timeout_seconds=2.0)
    with pytest.raises(RedisUnavailable, match=r"^nowhere\.invalid:1: its name is not found$"):
        wire.call([("PING",)])
    assert not any(part in caplog.text for part in PARTS)


def test_a_login_that_is_refused_is_told_without_the_name(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        wire = Wire(f"unix://Tr0ub4dor:S3cretTail@{server.socket}", Scripts.load(), answer_timeout_seconds=2.0)
        with pytest.raises(RedisRefused) as refused:
            wire.call([("PING",)])
    assert "user name or the password" in str(refused.value)
    assert not any(part in str(refused.value) for part in PARTS)


@pytest.mark.pure
def test_what_a_user_may_not_do_is_told_without_the_name() -> None:
    text = "User Tr0ub4dor has no permissions to run the 'config|get' command"
    assert str(failure(NoPermissionError(text))) == "NOPERM: this user may not do what is needed: config|get"
