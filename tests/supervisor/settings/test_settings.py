"""Settings: where a value comes from, what is refused, and that no refusal ever shows a value."""

import base64
import pickle
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from bus.settings.reader import SettingsError
from bus.settings.shared import default_handler
from supervisor.settings.bounds import Bounds
from supervisor.settings.keeper import KeeperSettings, http_address
from supervisor.settings.misspelt import misspelt
from supervisor.settings.secrets import Secret, StoreSecretDamaged, load_or_make_store_secret
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.table import ALL_SETTINGS
from supervisor.settings.worker import LoneWorkerSettings
from tests.supervisor.settings.environment import AGENT_ID, ED25519_PRIVATE, SECRETS, STORE_KEY, TOKEN, agent_environ

pytestmark = pytest.mark.pure


def supervisor(**environ: str) -> SupervisorSettings:
    return SupervisorSettings.from_environ(agent_environ(**environ))


def refusal(**environ: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        supervisor(**environ)
    return caught.value


def test_four_values_are_enough_and_the_rest_has_defaults() -> None:
    settings = supervisor()
    assert settings.agent_id == AGENT_ID
    assert settings.base_url == "https://api.hashee.ai"
    assert (settings.workers, settings.concurrency, settings.drain_seconds) == (Bounds(2, 2), 64, 25.0)
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 9090)
    assert (settings.send_rate_per_second, settings.first_sync_seconds) == (5.0, 86400)
    assert settings.handler == "workers.builtin.echo:agent"
    assert settings.redis_url is None
    assert settings.store_key is None
    assert settings.state_dir == Path("/home/owner/.local/state/hashee-agent") / AGENT_ID


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HASHEE_AGENT_ID", ""),
        ("HASHEE_AGENT_ID", AGENT_ID.upper()),
        ("HASHEE_AGENT_ID", "7"),
        ("HASHEE_AGENT_TOKEN", TOKEN[:-1]),
        ("HASHEE_AGENT_TOKEN", TOKEN[:-1] + "-"),
        ("HASHEE_X25519_PRIVATE_BASE64", "AAAA"),
        ("HASHEE_X25519_PRIVATE_BASE64", "not base64"),
        ("HASHEE_ED25519_PRIVATE_BASE64", base64.b64encode(bytes(64)).decode()),
        ("HASHEE_ED25519_PRIVATE_BASE64", ED25519_PRIVATE.rstrip("=")),
        ("HASHEE_BASE_URL", "http://example.org"),
        ("HASHEE_BASE_URL", "ftp://example.org"),
        ("HASHEE_BASE_URL", "https://user@example.org"),
        ("HASHEE_CONNECTION_MODE", "webhook"),
        ("HASHEE_REDIS_URL", "http://localhost"),
        ("HASHEE_REDIS_URL", "redis://localhost:port"),
        ("HASHEE_REDIS_TRUST", "everything"),
        ("HASHEE_HANDLER", "no_attribute"),
        ("HASHEE_HANDLER", "my-agent:agent"),
        ("HASHEE_WORKERS", "257"),
        ("HASHEE_WORKERS", "4:2"),
        ("HASHEE_WORKERS", "0:2"),
        ("HASHEE_WORKER_MEMORY", "512:256"),
        ("HASHEE_WORKER_MAX_AGE_SECONDS", "soon"),
        ("HASHEE_WORKERS", "two"),
        ("HASHEE_CONCURRENCY", "-1"),
        ("HASHEE_STATE_DIR", "relative/path"),
        ("HASHEE_HTTP_PORT", "65536"),
        ("HASHEE_SEND_RATE", "nan"),
        ("HASHEE_DRAIN_SECONDS", "1e3"),
        ("HASHEE_STORE_KEY", "AAAA"),
        ("HASHEE_LOG_LEVEL", "loud"),
        ("HASHEE_LOG_FORMAT", "xml"),
    ],
)
def test_a_missing_or_malformed_value_is_refused_by_name_in_one_line_without_it(name: str, value: str) -> None:
    error = refusal(**{name: value})
    assert error.name == name
    assert str(error).startswith(f"{name} is ")
    assert error.expectation in str(error)
    assert "\n" not in str(error)
    assert len(value) < 4 or value not in str(error)


def test_every_fault_of_one_start_is_named_in_the_one_line() -> None:
    error = refusal(HASHEE_AGENT_TOKEN="", HASHEE_WORKERS="x", HASHEE_LOG_LEVEL="x")
    assert error.name == "HASHEE_AGENT_TOKEN"
    assert str(error).endswith("(and 2 more: HASHEE_WORKERS, HASHEE_LOG_LEVEL)")


def test_a_fault_that_is_found_twice_is_named_once() -> None:
    assert "more" not in str(refusal(HASHEE_STATE_DIR="~/state"))


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_value_that_came_with_its_quotes_is_refused_with_what_helps(quote: str) -> None:
    error = refusal(HASHEE_AGENT_TOKEN=f"{quote}{TOKEN}{quote}")
    assert "it stands in quotes" in str(error)
    assert TOKEN not in str(error)


def test_a_name_that_is_nearly_a_setting_is_found_and_an_owners_own_is_left() -> None:
    wrong = {
        "HASHEE_WORKER": "HASHEE_WORKERS",
        "HASHEE_LOGLEVEL": "HASHEE_LOG_LEVEL",
        "hashee_workers": "HASHEE_WORKERS",
    }
    own = ("HASHEE_DATABASE_URL", "HASHEE_SHOP_KEY", "HASHEE_REDIS_PORT", "HASHEE_WORKER_NAME", "WORKERS", "PATH")
    settings = {one.name for one in ALL_SETTINGS} | {"HASHEE_AGENT_TOKEN_FILE"}
    assert misspelt({*wrong, *own, *settings}) == wrong


def test_a_secret_comes_from_the_variable_then_its_file_then_the_credential(tmp_path: Path) -> None:
    in_file, in_credential = TOKEN[:-1] + "1", TOKEN[:-1] + "2"
    (tmp_path / "token").write_text(f"{in_file}\n", encoding="utf-8")
    (tmp_path / "hashee_agent_token").write_text(in_credential, encoding="utf-8")
    credential = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    file = {"HASHEE_AGENT_TOKEN_FILE": str(tmp_path / "token")}
    assert supervisor(**file, **credential).agent_token.reveal() == TOKEN
    assert supervisor(HASHEE_AGENT_TOKEN="", **file, **credential).agent_token.reveal() == in_file
    assert supervisor(HASHEE_AGENT_TOKEN="", **credential).agent_token.reveal() == in_credential


def test_a_credential_may_be_named_in_upper_case(tmp_path: Path) -> None:
    (tmp_path / "HASHEE_STORE_KEY").write_text(STORE_KEY, encoding="utf-8")
    store_key = supervisor(CREDENTIALS_DIRECTORY=str(tmp_path)).store_key
    assert store_key == Secret(bytes(range(64, 96)))


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_secret_file_that_cannot_be_used_is_named_and_nothing_else_is_complained_of(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    error = refusal(HASHEE_AGENT_TOKEN="", HASHEE_AGENT_TOKEN_FILE=str(path))
    assert error.name == "HASHEE_AGENT_TOKEN_FILE"
    assert error.others == ()


def test_an_ed25519_key_may_carry_its_public_half_if_it_matches() -> None:
    seed = bytes(range(32, 64))
    whole = base64.b64encode(seed + bytes(SigningKey(seed).verify_key)).decode()
    assert supervisor(HASHEE_ED25519_PRIVATE_BASE64=whole).ed25519_seed == Secret(seed)


def test_a_given_redis_demands_a_store_key() -> None:
    assert refusal(HASHEE_REDIS_URL="redis://localhost:6379/0").name == "HASHEE_STORE_KEY"
    settings = supervisor(REDIS_URL="rediss://:secret@redis:6379", HASHEE_STORE_KEY=STORE_KEY)
    assert settings.redis_url == Secret("rediss://:secret@redis:6379")
    assert "secret@" not in repr(settings)


def test_a_loopback_base_url_may_be_plain_http() -> None:
    for url in ("http://127.0.0.1:8000", "http://localhost:8000/", "http://[::1]:8000"):
        assert supervisor(HASHEE_BASE_URL=url).base_url == url.rstrip("/")


def test_the_state_directory_is_the_given_one_then_systemds_then_the_users() -> None:
    assert supervisor(STATE_DIRECTORY="/var/lib/a:/var/lib/b").state_dir == Path("/var/lib/a")
    assert supervisor(STATE_DIRECTORY="/var/lib/a", HASHEE_STATE_DIR="/srv/a").state_dir == Path("/srv/a")


def test_port_is_honoured_where_the_own_setting_is_not_given() -> None:
    assert http_address({"PORT": "8080"}) == ("127.0.0.1", 8080)
    assert http_address({"PORT": "8080", "HASHEE_HTTP_PORT": "0"}) == ("127.0.0.1", 0)


def test_the_built_in_handler_follows_from_the_models_endpoint() -> None:
    assert default_handler({}) == "workers.builtin.echo:agent"
    assert default_handler({"OPENAI_BASE_URL": "http://localhost"}) == "workers.builtin.llm:agent"
    assert supervisor(OPENAI_API_KEY="x", HASHEE_HANDLER="mine.module:bot").handler == "mine.module:bot"


def test_the_keeper_opens_no_file_that_could_hold_a_secret_and_its_value_shows_none(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    files = {f"{setting.name}_FILE": missing for setting in ALL_SETTINGS if setting.secret}
    settings = KeeperSettings.from_environ(agent_environ(**files))
    assert not settings.redis_is_private
    assert KeeperSettings.from_environ(agent_environ()).redis_is_private
    assert not any(secret in repr(settings) for secret in SECRETS)


def test_a_worker_elsewhere_needs_redis_and_the_bus_key_and_no_key_of_the_agent() -> None:
    environ = {"HASHEE_AGENT_ID": AGENT_ID, "HASHEE_REDIS_URL": "redis://r", "HASHEE_BUS_KEY": STORE_KEY}
    assert LoneWorkerSettings.from_environ(environ).bus_key == Secret(bytes(range(64, 96)))
    del environ["HASHEE_BUS_KEY"]
    with pytest.raises(SettingsError, match=r"^HASHEE_BUS_KEY is not set"):
        LoneWorkerSettings.from_environ(environ)


def test_a_secret_is_hidden_wherever_it_is_formatted() -> None:
    secret = Secret("hunter2")
    shown = (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{secret:>5}", repr([secret]))
    assert not any("hunter2" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert not any(value in repr(supervisor(HASHEE_STORE_KEY=STORE_KEY)) for value in SECRETS)


def test_the_store_secret_is_made_once_and_never_replaced(tmp_path: Path) -> None:
    made = load_or_make_store_secret(tmp_path)
    assert load_or_make_store_secret(tmp_path) == made
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(made.reveal()[:31])
    with pytest.raises(StoreSecretDamaged, match=path.name):
        load_or_make_store_secret(tmp_path)
    assert path.stat().st_size == 31
