"""A setting that a supervisor and its workers read both means the same to both, in whatever spelling; or is refused by both."""

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.settings import shared as shared_settings
from bus.settings.reader import Setting, SettingsError, SettingsReader
from supervisor.pool.worker_order import OURS_FOR_WORKERS
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.table import ALL_SETTINGS
from supervisor.settings.worker import LoneWorkerSettings as AloneSettings
from tests.supervisor.relay.test_websocket_tls import certificate
from workers.process.settings import WorkerSettings, parse_options, read_settings

pytestmark = pytest.mark.pure

KEY = base64.b64encode(bytes(32)).decode()
GOOD = {
    "HASHEE_AGENT_ID": "01906abc-0000-7000-8000-000000000001",
    "HASHEE_AGENT_TOKEN": f"hsk_{'a' * 40}",
    "HASHEE_X25519_PRIVATE_BASE64": base64.b64encode(bytes(range(32))).decode(),
    "HASHEE_ED25519_PRIVATE_BASE64": base64.b64encode(bytes(range(32))).decode(),
    "HASHEE_STORE_KEY": KEY,
    "HASHEE_BUS_KEY": KEY,
    "HASHEE_REDIS_URL": "redis://127.0.0.1:6379/0",
    "HASHEE_STATE_DIR": "/tmp/state",  # noqa: S108 - nothing is written there
}
# Right, wrong and odd ones of every kind, each tried for every setting.
VALUES = [
    *(
        "",
        " ",
        "on",
        "ON",
        " On ",
        "off",
        "OFF",
        "true",
        "1",
        "0",
        "none",
        "NONE",
        "none ",
        "None",
        "null",
        "nan",
        "inf",
    ),
    *(
        "600",
        " 600 ",
        "+600",
        "6e2",
        "600.0",
        "600.",
        ".5",
        "0.1",
        "0.05",
        "1_000",
        "٣",
        "-1",
        "86400",
        "86401",
        "1e400",
    ),
    *(
        "1,5,30",
        "1, 5, 30",
        " 1,5,30 ",
        "1,,5",
        ",",
        "1;5",
        "0",
        "0,0",
        "1.5,2.25",
        "1.12345",
        "nan,1",
        ",".join(["1"] * 19),
    ),
    *(",".join(["1"] * 20), "16", "016", "1024", "1025", "16.0", "sixteen", "16\n", "1\u00a0", "０１"),
    *("debug", "DEBUG", " Info ", "warn", "json", "JSON", "console", "auto", "Auto", "text"),
    *("my_agent:agent", " my_agent:agent ", "my_agent", "my.agent:a.b", "my agent:agent", "1:2", "módulo:agente"),
    *(
        "redis://h:6379/0",
        "REDIS://h",
        "redis://h:port",
        "redis:///",
        "unix:///r.sock",
        "unix://r",
        "http://h",
        "http://h:9477",
        "https://[::1]:9477/",
        "https://u@h:1",
        "none",
        "rediss://u:p@h/1",
    ),
    *(GOOD["HASHEE_AGENT_ID"], GOOD["HASHEE_AGENT_ID"].upper(), f" {GOOD['HASHEE_AGENT_ID']}\n", "agent"),
    *(KEY, KEY.rstrip("="), f"{KEY}\n", f" {KEY}", KEY.replace("A", "-", 1), base64.b64encode(bytes(31)).decode()),
]


@dataclass
class Verdict:
    """What a side makes of an environment: a refusal by name, or values."""

    refused: bool
    values: Mapping[str, object]


def as_supervisor(environ: dict[str, str]) -> Verdict:
    """As `hashee-agent supervisor` and `check-settings` read it, with what workers read too."""
    try:
        settings = SupervisorSettings.from_environ(environ)
    except SettingsError:
        return Verdict(refused=True, values={})
    reader = SettingsReader(environ)
    return Verdict(
        refused=False,
        values={
            "agent_id": settings.agent_id,
            "redis_url": settings.redis_url.reveal() if settings.redis_url else None,
            "handler": settings.handler,
            "concurrency": settings.concurrency,
            "job_seconds": settings.job_seconds,
            "log_level": settings.log.level,
            "log_format": settings.log.format,
            "retry_after_seconds": shared_settings.retry_seconds_of(reader),
            "retries_timeouts": shared_settings.retries_timeouts_of(reader),
            "shows_errors": settings.shows_errors,
            "files": settings.files,
        },
    )


def as_worker(environ: dict[str, str]) -> Verdict:
    """As `python -m workers` reads it."""
    try:
        settings: WorkerSettings = read_settings(parse_options([]), dict(environ))
    except SettingsError:
        return Verdict(refused=True, values={})
    names = (
        *("agent_id", "redis_url", "handler", "concurrency", "job_seconds", "log_level", "log_format"),
        *("retry_after_seconds", "retries_timeouts", "shows_errors", "files"),
    )
    return Verdict(refused=False, values={name: getattr(settings, name) for name in names})


@pytest.mark.parametrize("setting", shared_settings.ALL, ids=lambda setting: str(setting.name))
def test_both_sides_read_every_spelling_alike(setting: Setting, tmp_path: Path) -> None:
    verdicts, (whom_to_believe, _) = (
        [],
        certificate(tmp_path),
    )  # one is read sooner than all of the machine's, each time
    for value in VALUES:
        environ = {**GOOD, "SSL_CERT_FILE": str(whom_to_believe), setting.name: value}
        supervisor, worker = as_supervisor(environ), as_worker(environ)
        if (
            setting is shared_settings.BUS_KEY
        ):  # a supervisor derives it, and a worker alone is started by its own command
            supervisor = Verdict(worker.refused, worker.values)
            assert alone_is_refused(environ) == worker.refused, value
        if setting is shared_settings.REDIS_URL and not value.strip():
            continue  # the private one; a worker has none
        assert supervisor == worker, f"{setting.name}={value!r}"
        verdicts.append(worker.refused)
    assert True in verdicts
    assert False in verdicts


def alone_is_refused(environ: dict[str, str]) -> bool:
    """What `hashee-agent worker` says before it becomes `python -m workers`."""
    try:
        AloneSettings.from_environ(environ)
    except SettingsError:
        return True
    return False


def test_what_was_read_otherwise_once() -> None:
    on = as_worker({**GOOD, "HASHEE_RETRY_TIMEOUTS": "ON"})
    assert on.values["retries_timeouts"] is True
    never = as_worker({**GOOD, "HASHEE_RETRY_SECONDS": "none "})
    assert never.values["retry_after_seconds"] == ()
    assert as_worker({**GOOD, "HASHEE_LOG_LEVEL": "DEBUG"}).values["log_level"] == "debug"


def test_every_setting_that_a_supervisor_hands_on_is_read_by_one_parser() -> None:
    shared = {setting.name for setting in shared_settings.ALL}
    assert shared >= OURS_FOR_WORKERS
    assert {setting.name for setting in ALL_SETTINGS} >= shared


def test_a_command_line_is_read_as_the_environment_is() -> None:
    options = parse_options(["--concurrency", " 8 ", "--handler", "a:b", "--redis", "unix:///r"])
    settings = read_settings(options, dict(GOOD))
    assert (settings.concurrency, settings.handler, settings.redis_url) == (8, "a:b", "unix:///r")
    with pytest.raises(SettingsError, match="HASHEE_CONCURRENCY"):
        read_settings(parse_options(["--concurrency", "many"]), dict(GOOD))


def test_a_worker_process_names_what_is_wrong_and_never_the_value() -> None:
    environ = {**os.environ, **GOOD, "HASHEE_RETRY_TIMEOUTS": "perhaps", "HASHEE_BUS_KEY": "a secret"}
    done = subprocess.run(
        [sys.executable, "-m", "workers"], env=environ, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 78
    assert "HASHEE_BUS_KEY" in done.stderr
    assert "HASHEE_RETRY_TIMEOUTS" in done.stderr
    assert "secret" not in done.stderr
