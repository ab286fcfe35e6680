"""What a file gate is told, where workers find it, and what is refused of both."""

from pathlib import Path

import pytest

from bus.settings.files_place import FilesPlace, files_place_of
from bus.settings.reader import SettingsError, SettingsReader
from supervisor.settings.files import FilesSettings, files_address
from tests.supervisor.relay.test_websocket_tls import certificate
from tests.supervisor.settings.environment import AGENT_ID, STORE_KEY, TOKEN

pytestmark = pytest.mark.pure


def environment(**more: str) -> dict[str, str]:
    least = {"HASHEE_AGENT_ID": AGENT_ID, "HASHEE_AGENT_TOKEN": TOKEN, "HASHEE_BASE_URL": "http://127.0.0.1:1"}
    return {**least, "HOME": "/home/owner", **more}


def gate(**more: str) -> FilesSettings:
    return FilesSettings.from_environ(environment(**more))


def place(**more: str) -> FilesPlace | None:
    reader = SettingsReader(more)
    found = files_place_of(reader)
    reader.finish()
    return found


def test_a_gate_needs_the_agents_token_and_reads_its_callers_key_beside_the_supervisor() -> None:
    settings = gate()
    assert settings.listen == ("127.0.0.1", 9477)
    assert settings.state_dir == Path("/home/owner/.local/state/hashee-agent") / AGENT_ID
    assert (settings.files_key, settings.upload_hosts, settings.tls) == (None, frozenset(), None)
    assert TOKEN not in repr(settings)


def test_a_gate_elsewhere_is_given_the_key_and_looks_into_no_state_directory() -> None:
    settings = gate(
        HASHEE_FILES_KEY=STORE_KEY, HASHEE_FILES_LISTEN="[::]:0", HASHEE_UPLOAD_HOSTS="a.lan, [::1]:9000,B.lan:1"
    )
    assert settings.state_dir is None
    assert settings.listen == ("::", 0)
    assert settings.upload_hosts == {"a.lan", "[::1]:9000", "b.lan:1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("HASHEE_AGENT_TOKEN", value) for value in ("", "hsk_x")),
        *(("HASHEE_FILES_KEY", value) for value in ("AAAA", "no base64")),
        *(
            ("HASHEE_FILES_LISTEN", value)
            for value in ("9477", "host", "host:port", "host:65536", ":", "a b:1", "h:-1")
        ),
        *(("HASHEE_UPLOAD_HOSTS", value) for value in ("https://h", "h/x", "u@h", "h:0", "h:65536", "a b", "*.h")),
        ("HASHEE_UPLOAD_HOSTS", ",".join(f"h{number}" for number in range(33))),
        ("HASHEE_FILES_CERT", "/absent.pem"),
        ("HASHEE_FILES_CERT", "relative.pem"),
        ("HASHEE_FILES_CERT_KEY", "/absent.pem"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        gate(**{name: value})
    assert refused.value.name in (name, "HASHEE_FILES_CERT")
    is_secret = name in ("HASHEE_AGENT_TOKEN", "HASHEE_FILES_KEY")
    assert not (is_secret and value and value in str(refused.value))


def test_a_certificate_and_its_key_make_it_serve_tls(tmp_path: Path) -> None:
    certificate_path, key_path = certificate(tmp_path)
    both = {"HASHEE_FILES_CERT": str(certificate_path), "HASHEE_FILES_CERT_KEY": str(key_path)}
    assert gate(**both).tls is not None
    assert files_address(both) == ("127.0.0.1", 9477, True)
    assert files_address({}) == ("127.0.0.1", 9477, False)
    for wrong in (
        {**both, "HASHEE_FILES_CERT_KEY": str(certificate_path)},
        {"HASHEE_FILES_CERT": str(certificate_path)},
    ):
        with pytest.raises(SettingsError, match="HASHEE_FILES_CERT"):
            gate(**wrong)


def test_workers_find_it_by_a_socket_a_host_or_not_at_all(tmp_path: Path) -> None:
    authority, _ = certificate(tmp_path)
    assert place() is None
    assert place(HASHEE_FILES_URL="none") is None
    assert place(HASHEE_FILES_URL="unix:///a%20b/files.sock") == FilesPlace(Path("/a b/files.sock"))
    plain = place(HASHEE_FILES_URL="http://files:9477")
    assert plain == FilesPlace(None, "files", 9477)
    secure = place(HASHEE_FILES_URL="https://[::1]:1/", HASHEE_FILES_CA=str(authority))
    assert plain is not None
    assert secure is not None
    assert (plain.tls, secure.tls is None, secure.shown) == (None, False, "https://[::1]:1")


@pytest.mark.parametrize(
    "url",
    [
        *("files:9477", "http://files", "ftp://files:1", "http://u@files:1", "http://files:1/x", "http://files:0"),
        *(
            "unix:relative",
            "unix://host/x",
            f"unix:///{'x' * 108}",
            "unix:///a%00b",
            "http://[::1:1",
            "http://files:1?x",
        ),
    ],
)
def test_any_other_place_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="HASHEE_FILES_URL"):
        place(HASHEE_FILES_URL=url)


@pytest.mark.parametrize("path", ["relative.pem", "/absent.pem", "/dev/null"])
def test_an_authority_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="HASHEE_FILES_CA"):
        place(HASHEE_FILES_URL="https://files:1", HASHEE_FILES_CA=path)
