"""What the private Redis' folder and the files in it are called; for those too who only look, and start no server."""

from typing import Final

DATA_FOLDER: Final = "redis"
"""In the state directory."""
APPEND_ONLY_FOLDER: Final = "appendonlydir"
"""In it: Redis' own default, under which it looks for its files."""
LOG_FILE: Final = "redis.log"
