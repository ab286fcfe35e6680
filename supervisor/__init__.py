"""The process that holds the connection and every key, the keeper that watches over it, and the command line."""

from host.lean_imports import import_without

import_without("structlog", "rich")
