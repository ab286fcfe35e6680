"""The command line as a newcomer meets it: exit statuses, one line for what is wrong, no secret, no traceback."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from supervisor.cli import COMMANDS, cli
from supervisor.cli.sandbox import PASSED_ON
from supervisor.cli.worker import worker_environment
from supervisor.settings.worker import LoneWorkerSettings
from tests.supervisor.keeper.running import ROOT
from tests.supervisor.settings.environment import AGENT_ID, SECRETS, STORE_KEY, TOKEN, agent_environ, process_environ

STUCK_SECONDS = 120
"""Three starts of a worker that ends, and the pauses between them, take three seconds of CPU alone."""


def run(*arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        env={"PYTHONPATH": str(ROOT), **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=STUCK_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.parametrize("command", ["up", "check-settings"])
def test_a_malformed_setting_is_78_and_one_line_without_its_value(tmp_path: Path, command: str) -> None:
    wrong = "not-" + TOKEN
    done = run(command, environ=process_environ(tmp_path / "state", HASHEE_AGENT_TOKEN=wrong), cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "hashee-agent: HASHEE_AGENT_TOKEN is malformed: expected the agent's token, hsk_ and 40 letters or digits"
    ]
    assert done.stdout == ""
    assert not any(secret in done.stderr for secret in SECRETS)
    assert not (tmp_path / "state").exists()


def test_a_public_key_of_backups_that_is_none_is_told_where_settings_are_checked_and_stops_no_start(
    tmp_path: Path,
) -> None:
    environ = process_environ(tmp_path / "state", HASHEE_BACKUP_RECIPIENTS="age1qqqq")
    done = run("check-settings", environ=environ, cwd=tmp_path)
    said = "hashee-agent: HASHEE_BACKUP_RECIPIENTS is malformed: expected age public keys (age1…), with commas between them"
    assert (done.returncode, done.stderr.splitlines()) == (78, [said])
    assert run("check-settings", "--quiet", environ=environ, cwd=tmp_path).returncode == 0  # as `up` asks


def test_every_command_can_be_loaded_and_explains_itself() -> None:
    for name in COMMANDS:
        if name in PASSED_ON:
            continue  # they pass everything on, --help too
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage:" in result.output
    listed = CliRunner().invoke(cli, ["--help"]).output
    assert all(name in listed for name in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ("react", "--message", "id"),
        ("react", "--message", "id", "no emoji"),
        ("react", "--message", "id", "--remove", "👍"),
        ("react", "👍"),
        ("recall",),
        ("send",),
    ],
)
def test_what_is_missing_or_too_much_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, [*words, "--to", "conversation"]).exit_code == 2


def test_version_names_the_redis_that_up_would_start(tmp_path: Path) -> None:
    done = run("version", environ=process_environ(tmp_path), cwd=tmp_path)
    assert done.returncode == 0
    assert "private Redis: redis 7" in done.stdout or "private Redis: valkey" in done.stdout


def test_a_supervisor_alone_needs_a_redis_and_says_so(tmp_path: Path) -> None:
    done = run("supervisor", environ=process_environ(tmp_path), cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith("hashee-agent: HASHEE_REDIS_URL is not set")
    assert done.stderr.count("\n") == 1


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    assert run("dance", environ={}, cwd=tmp_path).returncode == 2


def test_a_worker_away_from_home_gets_no_secret_of_the_supervisor() -> None:
    environ = agent_environ(
        HASHEE_REDIS_URL="redis://r",
        HASHEE_BUS_KEY=STORE_KEY,
        HASHEE_AGENT_TOKEN_FILE="/run/secrets/token",
        CREDENTIALS_DIRECTORY="/run/credentials",
        OPENAI_API_KEY="sk-of-the-owner",
    )
    given = worker_environment(LoneWorkerSettings.from_environ(environ), environ)
    assert given == {
        "HASHEE_AGENT_ID": AGENT_ID,
        "HASHEE_REDIS_URL": "redis://r",
        "HASHEE_BUS_KEY": STORE_KEY,
        "HOME": "/home/owner",
        "OPENAI_API_KEY": "sk-of-the-owner",
    }


class Status(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = self.path == "/healthz"
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"ok" if ready else b"no worker is ready")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        del format, args


def test_healthcheck_ends_with_1_and_the_reason_until_the_path_is_proven(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Status) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            environ = {"HASHEE_HTTP_PORT": str(server.server_port)}
            ready = run("healthcheck", environ=environ, cwd=tmp_path)
            live = run("healthcheck", "--live", environ=environ, cwd=tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert (ready.returncode, ready.stdout) == (1, "no worker is ready\n")
    assert (live.returncode, live.stdout) == (0, "ok\n")
    assert run("healthcheck", environ=environ, cwd=tmp_path).returncode == 1


def test_a_handler_that_cannot_be_imported_ends_up_with_78_and_is_said_once_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_like_this\n", encoding="utf-8")
    settings = {"HASHEE_HANDLER": "broken:agent", "HASHEE_BASE_URL": "http://127.0.0.1:9"}
    done = run("up", environ=process_environ(tmp_path / "state", **settings), cwd=tmp_path)
    assert done.returncode == 78
    [said] = [line for line in done.stderr.splitlines() if "nothing_like_this" in line]
    assert "ModuleNotFoundError" in said
    assert "broken.py:1" in said
