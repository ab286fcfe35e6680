"""Judges how far our clock and another one certainly differ, given how exactly that was measured."""

from supervisor.doctor.findings import Finding, at_most, judged

AHEAD_SECONDS = 5.0  # NTP keeps clocks within milliseconds
SPOILS_SECONDS = 60.0  # from here on times in messages, expiries and the memory of ids are judged wrongly
REMEDY = "set the clock of this host, or of the other: timedatectl set-ntp true; chronyc makestep"


def skew(other: str, ahead_seconds: float, unsure_seconds: float) -> Finding:
    """Returns the finding. `ahead_seconds`: ours minus the other's, exact to `unsure_seconds` on each side."""
    certain = max(0.0, abs(ahead_seconds) - unsure_seconds)
    verdict = at_most(certain, warns=AHEAD_SECONDS, spoils=SPOILS_SECONDS)
    if certain == 0:
        said = f"ours and the {other}'s agree within {unsure_seconds:.1f} s"
    else:
        direction = "ahead of" if ahead_seconds > 0 else "behind"
        said = f"ours is {certain:.1f} s {direction} the {other}'s (or a little more)"
    return judged("clock", other, verdict, said, REMEDY)
