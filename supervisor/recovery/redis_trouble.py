"""What keeps a part from its work in Redis is logged once for each change of the reason, and once when it is over."""

import structlog

from bus.transport.trouble import Trouble

log = structlog.get_logger()


def say_trouble(who: str, reason: str) -> None:
    """Once for each change."""
    if reason:
        log.warning("redis: a part cannot do its work there, it tries on", part=who, reason=reason)
    else:
        log.info("redis: a part does its work there again", part=who)


def said_trouble(who: str) -> Trouble:
    """Of one loop, which keeps its own pause."""
    return Trouble(who, say_trouble)
