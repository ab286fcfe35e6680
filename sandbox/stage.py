"""A whole house on one machine: the relay and `hashee-agent up` as child processes, and an agent's account and keys.

Everything lives in one folder and is gone with it; nothing here outlives the body, however it ends.
"""

import base64
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import trio

from crypto.identity import IdentityKeys
from sandbox.api import AgentAccount, RelayApi
from sandbox.children import ChildFailed, SandboxProcess, relay_process, running

READY_SECONDS = 30.0
READY_POLL_SECONDS = 0.05
DRAIN_SECONDS = 5
STOP_SECONDS = DRAIN_SECONDS + 5.0
EXIT_BAD_SETTINGS = 78

KEPT_SETTINGS = ("HASHEE_HANDLER", "HASHEE_WORKERS", "HASHEE_CONCURRENCY", "HASHEE_FSYNC")
KEPT_PREFIXES = ("HASHEE_LLM_", "HASHEE_LOG_")
WITHHELD = frozenset(
    {"REDIS_URL", "PORT", "NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"}
)
"""A sandbox must not touch the Redis, the port or the secrets of an agent that runs for real."""


class RunningSandbox(msgspec.Struct, frozen=True):
    """The running house. `api` acts as the sandbox's operator at the relay."""

    relay_url: str
    agent_id: str
    state_dir: Path
    http_url: str
    api: RelayApi
    agent: SandboxProcess
    relay: SandboxProcess


def agent_environment(
    environ: Mapping[str, str], relay_url: str, account: AgentAccount, folder: Path, http_port: int
) -> dict[str, str]:
    """What `hashee-agent up` needs for a fresh agent at the sandbox's relay, with new identity keys."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in WITHHELD
        and (not name.startswith("HASHEE_") or name in KEPT_SETTINGS or name.startswith(KEPT_PREFIXES))
    }
    agreement, signing = IdentityKeys.generate(os.urandom).private_halves()
    ours = {
        "HASHEE_AGENT_ID": account.agent_id,
        "HASHEE_AGENT_TOKEN": account.token,
        "HASHEE_X25519_PRIVATE_BASE64": base64.b64encode(agreement).decode(),
        "HASHEE_ED25519_PRIVATE_BASE64": base64.b64encode(signing).decode(),
        "HASHEE_BASE_URL": relay_url,
        "HASHEE_CONNECTION_MODE": "websocket",
        "HASHEE_STATE_DIR": str(folder / "state"),
        "HASHEE_HTTP_HOST": "127.0.0.1",
        "HASHEE_HTTP_PORT": str(http_port),
        "HASHEE_DRAIN_SECONDS": str(DRAIN_SECONDS),
    }
    return {"HASHEE_WORKERS": "2", **kept, **ours}


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    relay_options: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    agent_id: str | None = None,
    ready_seconds: float = READY_SECONDS,
    agent_checkout: Path | None = None,
) -> AsyncIterator[RunningSandbox]:
    """Relay and agent, ready (the agent's /readyz says 200). Raises `ChildFailed` with the last lines of what failed.

    `settings`: stronger than what it has otherwise; a name with an empty value is unset. `agent_id`: of an agent that has a store already.
    `agent_checkout`: another than this one, with a .venv of its own, whose agent it is.
    """
    async with (
        relay_process(*relay_options, log_path=folder / "relay.log") as (relay, relay_url),
        RelayApi(relay_url) as api,
    ):
        account = await api.add_agent("Sandbox agent", agent_id)
        port = free_port()
        merged = agent_environment(environ, relay_url, account, folder, port) | dict(settings or {})
        environment = {name: value for name, value in merged.items() if value}
        python = str(agent_checkout / ".venv/bin/python") if agent_checkout else sys.executable
        async with running(
            "agent",
            [python, "-P", "-m", "supervisor", "up"],
            log_path=folder / "agent.log",
            environment=environment,
            stop_signal=signal.SIGTERM,
            stop_seconds=STOP_SECONDS,
            folder=agent_checkout,
        ) as agent:
            http_url = f"http://127.0.0.1:{port}"
            await until_ready(http_url, agent, ready_seconds)
            state_dir = Path(environment["HASHEE_STATE_DIR"])
            yield RunningSandbox(relay_url, account.agent_id, state_dir, http_url, api, agent, relay)


async def until_ready(http_url: str, agent: SandboxProcess, seconds: float = READY_SECONDS) -> None:
    """Returns when /readyz says 200. Raises `ChildFailed` when the process ends first or the time does."""
    last = "no answer"
    async with httpx2.AsyncClient(trust_env=False, timeout=2.0, verify=http_url.startswith("https:")) as client:
        with trio.move_on_after(seconds):
            while agent.exit_code is None:
                try:
                    response = await client.get(f"{http_url}/readyz")
                    if response.status_code == httpx2.codes.OK:
                        return
                    last = response.text
                except httpx2.TransportError:
                    pass  # not listening yet
                await trio.sleep(READY_POLL_SECONDS)
    if agent.exit_code is not None:
        raise ChildFailed(f"the agent ended with exit code {agent.exit_code}\n{agent.last_lines()}")
    raise ChildFailed(f"the agent was not ready after {seconds:.0f} s: {last}\n{agent.last_lines()}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
