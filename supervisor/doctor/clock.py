"""Our clock against another one: how far apart they certainly are, given how exactly that was measured."""

from supervisor.doctor.findings import Finding, at_most, judged

AHEAD_SECONDS = 5.0  # of what NTP keeps within milliseconds
SPOILS_SECONDS = 60.0  # times in messages, expiries and the memory of ids are judged by it
REMEDY = "set the clock of this host, or of the other: timedatectl set-ntp true; chronyc makestep"


def skew(other: str, ahead_seconds: float, unsure_seconds: float) -> Finding:
    """`ahead_seconds`: ours minus the other's, right to `unsure_seconds` on each side."""
    certain = max(0.0, abs(ahead_seconds) - unsure_seconds)
    verdict = at_most(certain, warns=AHEAD_SECONDS, spoils=SPOILS_SECONDS)
    if certain == 0:
        said = f"ours and the {other}'s agree within {unsure_seconds:.1f} s"
    else:
        direction = "ahead of" if ahead_seconds > 0 else "behind"
        said = f"ours is {certain:.1f} s {direction} the {other}'s (or a little more)"
    return judged("clock", other, verdict, said, REMEDY)
