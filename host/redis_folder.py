"""The names of the private Redis' folder and files, also for code that only reads them and starts no server."""

from typing import Final

DATA_FOLDER: Final = "redis"
"""The folder in the state directory."""
APPEND_ONLY_FOLDER: Final = "appendonlydir"
"""The folder in that one where Redis keeps its append-only files, by its own default."""
LOG_FILE: Final = "redis.log"
