"""What the agent of a rollout does with each message: pure, so that handler and judge agree without talking."""

import random

from tests.trials.chaos.script import PIECE, Answer, Handling

SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 2.0
STREAMED = 0.1
PIECES = 4
PIECE_SECONDS = 0.15


def handling_of(text: str) -> Handling:
    """Seeded by the text: one answer after 0.1 to 2 s in all, one in ten streamed, now and then a second answer."""
    chance = random.Random(text)
    streamed = chance.random() < STREAMED
    seconds = chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
    if streamed:
        pause = max(SHORTEST_SECONDS, seconds - PIECES * PIECE_SECONDS)
        return Handling((Answer(pause, f"{text}#0{PIECE * PIECES}", PIECES),), 0.0, False)
    answers = [Answer(seconds, f"{text}#0")]
    if chance.random() < 0.1:
        answers.append(Answer(0.0, f"{text}#1"))
    return Handling(tuple(answers), 0.0, False)
