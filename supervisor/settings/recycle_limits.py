"""What a worker is replaced for, as the settings say it (supervisor/pool/recycling.py judges)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RecycleLimits:
    """0 is no limit. Over `soft_bytes` a worker drains, over `hard_bytes` it is killed. Memory is what it holds now, not its peak.

    None is replaced within `rest_seconds` of its start: one that is too large from the beginning would be replaced for ever.
    """

    jobs: int = 0
    age_seconds: float = 0.0
    soft_bytes: int = 0
    hard_bytes: int = 0
    rest_seconds: float = 30.0
