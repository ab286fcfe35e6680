"""What a rollout promises (P1 to P3, P6), against what was counted."""

from tests.trials.rollout.run import Order, Outcome

MOST_CONNECTIONS = 3
LONGEST_GAP_MS = 1500
HANDED_OVER_MS = 1000
"""Where one connection is all that is allowed, the next begins when the former has ended: so fast."""


def what_is_bad(outcome: Outcome, order: Order) -> list[str]:
    """Nothing is lost, repeated or reordered, whatever goes wrong; without trouble nobody notices anything either."""
    figures = outcome.figures
    bad = [
        f"{name}: {getattr(figures, name)}" for name in ("lost", "duplicated", "reordered") if getattr(figures, name)
    ]
    if figures.max_connections > min(MOST_CONNECTIONS, order.max_connections):
        bad.append(f"{figures.max_connections} connections at a time")
    if not order.trouble and figures.connectionless_ms > (HANDED_OVER_MS if order.max_connections == 1 else 0):
        bad.append(f"connectionless for {figures.connectionless_ms} ms")
    if not order.trouble and figures.max_gap_ms >= LONGEST_GAP_MS:
        bad.append(f"no reply for {figures.max_gap_ms} ms")
    return [*bad, *outcome.wrong]
