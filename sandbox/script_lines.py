"""The lines of a console's script: what is said, and what the agent is to say to it.

    > /book
    < Your name?

A line without either mark is said too; `# ` begins a comment. Where an answer stands below what is said, all that the agent says to it has to
stand there; `<` alone is for nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Step:
    """Something that is said. `expected`: the lines of the agent's answer; None if nobody has written them down. `number`: of its line."""

    line: str
    number: int
    expected: list[str] | None = field(default=None)


def steps_in(lines: Iterable[str]) -> list[Step]:
    """Returns what is said in a script, in order. Raises ValueError for an answer to nothing."""
    steps: list[Step] = []
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r\n")
        if line == "<" or line.startswith("< "):
            if not steps:
                raise ValueError(f"line {number} is an answer to nothing: say something above it")
            expected = steps[-1].expected or []
            steps[-1].expected = expected + ([line[2:]] if line != "<" else [])
        elif line.strip() and not line.startswith("# "):
            steps.append(Step(line.removeprefix("> ").strip(), number))
    return steps


def difference(step: Step, said: list[str]) -> str:
    """Returns how an answer differs from what was expected; '' if it does not."""
    if step.expected is None or step.expected == said:
        return ""
    wanted = "\n".join(f"  < {line}" for line in step.expected) or "  nothing"
    heard = "\n".join(f"  < {line}" for line in said) or "  nothing"
    return f"line {step.number}: to {step.line!r} was expected\n{wanted}\nand the agent said\n{heard}"
