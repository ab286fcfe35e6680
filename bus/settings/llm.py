"""The settings of the language model: read by the workers, and checked by whoever starts them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bus.settings.reader import Malformed, Setting, SettingsReader, Unusable, matching, number, one_of, whole_number

MOST_PROMPT_BYTES = 256 * 1024
MOST_HISTORY_TOKENS = 10_000_000
LONGEST_WAIT_SECONDS = 86_400

BASE_URL = Setting(
    "OPENAI_BASE_URL",
    "an http:// or https:// URL without spaces, quotes or line breaks, such as http://127.0.0.1:11434/v1",
)
API_KEY = Setting("OPENAI_API_KEY", "a key of printable ASCII without spaces, quotes or line breaks", secret=True)
MODEL = Setting("HASHEE_LLM_MODEL", "the model's name, without spaces", default="gpt-4o-mini")
SYSTEM_PROMPT_FILE = Setting("HASHEE_LLM_SYSTEM_PROMPT_FILE", "the path of a text file in UTF-8 of at most 256 KiB")
HISTORY_TOKENS = Setting("HASHEE_LLM_HISTORY_TOKENS", "a whole number of tokens, 0 to 10000000", default="4000")
WAIT_SECONDS = Setting("HASHEE_LLM_WAIT_SECONDS", "seconds, 0 to 86400", default="600")

PICTURES = Setting("HASHEE_LLM_PICTURES", "auto or off", default="auto")

ALL = (BASE_URL, API_KEY, MODEL, SYSTEM_PROMPT_FILE, HISTORY_TOKENS, WAIT_SECONDS, PICTURES)


@dataclass(frozen=True, kw_only=True)
class LLMSettings:
    """Where the model is and how it is asked. `base_url` None: OpenAI's own endpoint; `system_prompt` None: none is set."""

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    model: str = "gpt-4o-mini"
    system_prompt: str | None = field(default=None, repr=False)
    history_tokens: int = 4000
    wait_seconds: float = 600.0
    pictures: str = "auto"


def llm_settings_of(reader: SettingsReader) -> LLMSettings:
    """Returns the settings; what is wrong with them is noted for `finish`."""
    for setting in (BASE_URL, API_KEY):
        given = reader.environ.get(setting.name, "")
        if given.strip() and given != given.strip():  # others read these variables as they are
            reader.refuse(setting)
    return LLMSettings(
        base_url=reader.optional(BASE_URL, base_url),
        api_key=reader.optional(API_KEY, api_key),
        model=reader.required(MODEL, model_name, ""),
        system_prompt=reader.optional(SYSTEM_PROMPT_FILE, _file),
        history_tokens=reader.required(HISTORY_TOKENS, whole_number(0, MOST_HISTORY_TOKENS), 0),
        wait_seconds=reader.required(WAIT_SECONDS, number(0, LONGEST_WAIT_SECONDS), 0.0),
        pictures=reader.required(PICTURES, one_of(("auto", "off")), "auto"),
    )


def api_key_to_hand_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variable with the key for a worker, if it is in a file or credential that it may not see; else nothing."""
    if environ.get(API_KEY.name, "").strip():
        return {}
    text = SettingsReader(environ).optional(API_KEY, str)
    return {} if text is None else {API_KEY.name: text}


def is_model_given(environ: Mapping[str, str]) -> bool:
    """Returns whether an endpoint, or a key for one, is set."""
    reader = SettingsReader(environ)
    return reader.is_given(BASE_URL) or reader.is_given(API_KEY)


api_key = matching(r"[!#-&(-_a-~]{1,4096}")
model_name = matching(r"[!#-&(-~]{1,200}")


def base_url(text: str) -> str:
    """Returns the text itself if it is an endpoint's URL; raises Malformed."""
    if not re.fullmatch(r"https?://[!#-&(-;=?-_a-~]+", text):
        raise Malformed
    try:
        parts = urlsplit(text)
        is_one = bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        raise Malformed from None
    if not is_one:
        raise Malformed
    return text


def _file(text: str) -> str:
    try:
        with Path(text).open("rb") as file:
            prompt = file.read(MOST_PROMPT_BYTES + 1)
        if len(prompt) > MOST_PROMPT_BYTES:
            raise Unusable
        return prompt.decode().strip()
    except (OSError, UnicodeDecodeError, ValueError):
        raise Unusable from None
