"""Builders of a complete, valid environment for the settings tests and for real processes."""

import base64
import os
from pathlib import Path

AGENT_ID = "01906abc-0000-7000-8000-000000000001"
TOKEN = "hsk_" + "Ab3" * 13 + "z"
X25519_PRIVATE = base64.b64encode(bytes(range(32))).decode()
ED25519_PRIVATE = base64.b64encode(bytes(range(32, 64))).decode()
STORE_KEY = base64.b64encode(bytes(range(64, 96))).decode()
SECRETS = (TOKEN, X25519_PRIVATE, ED25519_PRIVATE, STORE_KEY)


def agent_environ(**more: str) -> dict[str, str]:
    """What an owner sets at least; a name with an empty value is unset."""
    return {
        "HASHEE_AGENT_ID": AGENT_ID,
        "HASHEE_AGENT_TOKEN": TOKEN,
        "HASHEE_X25519_PRIVATE_BASE64": X25519_PRIVATE,
        "HASHEE_ED25519_PRIVATE_BASE64": ED25519_PRIVATE,
        "HOME": "/home/owner",
        **more,
    }


def process_environ(state_dir: Path, **more: str) -> dict[str, str]:
    """The same for a real process: with PATH, a state directory and any free port."""
    defaults = {
        "PATH": os.environ["PATH"],
        "RUNTIME_DIRECTORY": os.environ.get("RUNTIME_DIRECTORY", ""),  # in memory, and gone with the tests
        "HASHEE_STATE_DIR": str(state_dir),
        "HASHEE_HTTP_PORT": "0",
        "HASHEE_LOG_FORMAT": "json",
    }
    return agent_environ(**{**defaults, **more})
