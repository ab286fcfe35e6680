"""Commands and streams to and from Redis, wherever it is."""

from host.lean_imports import import_without

import_without("redis", "opentelemetry")
