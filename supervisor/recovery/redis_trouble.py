"""Logs why a part cannot do its work in Redis: once for each change of the reason, and once when it is over."""

import structlog

from bus.transport.trouble import Trouble

log = structlog.get_logger()


def say_trouble(who: str, reason: str) -> None:
    """Logs a change of the reason; '' means that it is over."""
    if reason:
        log.warning("redis: a part cannot do its work there, it tries on", part=who, reason=reason)
    else:
        log.info("redis: a part does its work there again", part=who)


def said_trouble(who: str) -> Trouble:
    """Returns the Trouble of a loop, which logs its changes."""
    return Trouble(who, say_trouble)
