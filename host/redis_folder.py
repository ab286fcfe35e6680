"""The names of the private Redis' folder and files, also for code that only reads them and starts no server."""

from typing import Final

DATA_FOLDER: Final = "redis"
"""The folder in the state directory."""
APPEND_ONLY_FOLDER: Final = "appendonlydir"
"""The folder in that one where Redis keeps its append-only files, by its own default."""
MANIFEST_FILE: Final = "appendonly.aof.manifest"
"""In that folder: which of its files Redis loads."""
LOG_FILE: Final = "redis.log"
VERSION_FILE: Final = "server-version"
REDIS_SOCKET: Final = "redis.sock"
