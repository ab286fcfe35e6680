"""Commands and streams to and from Redis, wherever it is."""

from host.lean_imports import import_parts

import_parts("redis", ("backoff", "connection", "exceptions", "retry"), hidden="opentelemetry")
