"""Which environment a worker gets: everything of the owner's, nothing of ours but what it needs.

The owner's variables must reach the handler (their services' keys), so this is a rule by name: HASHEE_* is ours and withheld
unless listed here, and so is what systemd gives the main process alone. The bus key goes by a descriptor.
"""

from collections.abc import Mapping

from bus.telemetry.settings import headers_to_hand_on

# What a worker reads; every other HASHEE_* stays here, its _FILE form too.
OURS_FOR_WORKERS = frozenset(
    {
        *("HASHEE_AGENT_ID", "HASHEE_LOG_LEVEL", "HASHEE_LOG_FORMAT"),
        *("HASHEE_JOB_SECONDS", "HASHEE_RETRY_SECONDS", "HASHEE_RETRY_TIMEOUTS"),
    }
)
OURS_FOR_HANDLERS = "HASHEE_LLM_"
OURS = "HASHEE_"
OF_THE_MAIN_PROCESS = frozenset(
    {
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)


def worker_environment(environ: Mapping[str, str], *, agent_id: str, redis_url: str) -> dict[str, str]:
    """What is left of `environ` for a worker of this agent."""
    kept = {name: value for name, value in environ.items() if _may_go(name)} | headers_to_hand_on(environ)
    return kept | {"HASHEE_AGENT_ID": agent_id, "HASHEE_REDIS_URL": redis_url}


def _may_go(name: str) -> bool:
    if name in OF_THE_MAIN_PROCESS:
        return False
    return not name.startswith(OURS) or name in OURS_FOR_WORKERS or name.startswith(OURS_FOR_HANDLERS)
