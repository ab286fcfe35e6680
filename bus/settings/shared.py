"""The settings that both a supervisor and its workers read: name, form, default and parser of each.

With one parser for both sides a worker understands every spelling that a supervisor (or `check-settings`) accepts.
"""

import re
from collections.abc import Mapping

from bus.records.sealing import KEY_BYTES
from bus.settings.files_place import FILES_CA, FILES_URL
from bus.settings.llm import is_model_given
from bus.settings.reader import Malformed, Setting, SettingsReader, base64_bytes, matching, number, one_of, whole_number
from bus.settings.redis_tls import REDIS_CA, REDIS_CERT, REDIS_KEY, redis_url_with_tls
from bus.settings.redis_url import FORM, BadRedisUrl, parse_redis_url

UUID_PATTERN = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
HANDLER_PATTERN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
HANDLER_IS = "module:attribute, for example my_agent:agent"
MOST_RETRIES = 19  # a job is delivered at most 20 times
LONGEST_WAIT_SECONDS = 86_400
ECHO_HANDLER = "workers.builtin.echo:agent"
LLM_HANDLER = "workers.builtin.llm:agent"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("console", "json", "auto")

AGENT_ID = Setting("HASHEE_AGENT_ID", "the agent's id, a UUID in lower case")
REDIS_URL = Setting("HASHEE_REDIS_URL", FORM, secret=True, aliases=("REDIS_URL",))
STATE_DIR = Setting("HASHEE_STATE_DIR", "the absolute path of a directory of this agent alone")
BUS_KEY = Setting("HASHEE_BUS_KEY", "base64 of the 32-byte bus key of this agent", secret=True)
HANDLER = Setting("HASHEE_HANDLER", HANDLER_IS)
CONCURRENCY = Setting("HASHEE_CONCURRENCY", "a whole number from 1 to 1024", default="64")
JOB_SECONDS = Setting("HASHEE_JOB_SECONDS", "seconds, 0.1 to 86400", default="600")
RETRY_SECONDS = Setting(
    "HASHEE_RETRY_SECONDS", "up to 19 waits in seconds (to 86400) with commas, or none", default="1,5,30"
)
RETRY_TIMEOUTS = Setting("HASHEE_RETRY_TIMEOUTS", "on or off", default="off")
SHOW_ERRORS = Setting("HASHEE_SHOW_ERRORS", "on or off", default="off")
SHOWS_ERRORS = "the log shows the text and traceback of handlers' errors, which may quote conversations (HASHEE_SHOW_ERRORS): for development alone"
LOG_LEVEL = Setting("HASHEE_LOG_LEVEL", "debug, info, warning or error", default="info")
LOG_FORMAT = Setting("HASHEE_LOG_FORMAT", "console, json or auto", default="auto")
SPOOL_DIR = Setting("HASHEE_SPOOL_DIR", "the absolute path of a directory of this agent alone")
SPOOL_MB = Setting("HASHEE_SPOOL_MB", "MiB, a whole number from 1 to 1048576", default="2048")

OWN_REDIS = "HASHEE_OWN_REDIS"
"""No setting: by it the supervisor tells its workers that HASHEE_REDIS_URL is the agent's private Redis. A worker of a former version does without."""

ALL = (
    *(AGENT_ID, REDIS_URL, BUS_KEY, HANDLER, CONCURRENCY, JOB_SECONDS, RETRY_SECONDS, RETRY_TIMEOUTS),
    *(SHOW_ERRORS, LOG_LEVEL, LOG_FORMAT, REDIS_CA, REDIS_CERT, REDIS_KEY, FILES_URL, FILES_CA, SPOOL_DIR, SPOOL_MB),
)


def agent_id_of(reader: SettingsReader) -> str:
    return reader.required(AGENT_ID, matching(UUID_PATTERN), "")


def redis_url_of(reader: SettingsReader) -> str:
    """Returns HASHEE_REDIS_URL with its TLS options; noted as missing if it is not set."""
    return redis_url_with_tls(reader, reader.required(REDIS_URL, redis_url, "")) or ""


def given_redis_url_of(reader: SettingsReader) -> str | None:
    """Returns HASHEE_REDIS_URL with its TLS options; None if it is not set and the private Redis is used."""
    if not reader.is_given(REDIS_URL):
        return redis_url_with_tls(reader, None)
    return redis_url_with_tls(reader, reader.optional(REDIS_URL, redis_url) or "") or None


def bus_key_of(reader: SettingsReader) -> bytes:
    return reader.required(BUS_KEY, base64_bytes(frozenset({KEY_BYTES})), bytes(KEY_BYTES))


def handler_of(reader: SettingsReader) -> str | None:
    """Returns HASHEE_HANDLER; None if it is not set."""
    return reader.optional(HANDLER, matching(HANDLER_PATTERN))


def default_handler(environ: Mapping[str, str]) -> str:
    """Returns the built-in handler of an owner who named none: `llm` if a model's endpoint is set, else `echo`."""
    return LLM_HANDLER if is_model_given(environ) else ECHO_HANDLER


def concurrency_of(reader: SettingsReader) -> int:
    return reader.required(CONCURRENCY, whole_number(1, 1024), 1)


def job_seconds_of(reader: SettingsReader) -> float:
    return reader.required(JOB_SECONDS, number(0.1, LONGEST_WAIT_SECONDS), 1.0)


def retry_seconds_of(reader: SettingsReader) -> tuple[float, ...]:
    return reader.required(RETRY_SECONDS, waits, tuple[float, ...]())


def retries_timeouts_of(reader: SettingsReader) -> bool:
    return reader.required(RETRY_TIMEOUTS, one_of(("on", "off")), "off") == "on"


def shows_errors_of(reader: SettingsReader) -> bool:
    return reader.required(SHOW_ERRORS, one_of(("on", "off")), "off") == "on"


def log_level_of(reader: SettingsReader) -> str:
    return reader.required(LOG_LEVEL, one_of(LOG_LEVELS), "info")


def log_format_of(reader: SettingsReader) -> str:
    return reader.required(LOG_FORMAT, one_of(LOG_FORMATS), "auto")


def redis_url(text: str) -> str:
    """Returns the text itself if it can be parsed; raises Malformed."""
    try:
        parse_redis_url(text)
    except BadRedisUrl as problem:
        raise Malformed(str(problem)) from None
    return text


def waits(text: str) -> tuple[float, ...]:
    """Parses seconds with commas between them; `none` is an empty list."""
    if text.lower() == "none":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_RETRIES or not all(re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", part) for part in parts):
        raise Malformed
    seconds = tuple(float(part) for part in parts)
    if max(seconds) > LONGEST_WAIT_SECONDS:
        raise Malformed
    return seconds
