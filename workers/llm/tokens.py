"""How many tokens a text has: estimated by its bytes, and after each answer by what the endpoint has counted of such bytes."""

from collections.abc import Mapping, Sequence
from typing import Final

from workers.llm.pictures import text_of
from workers.llm.reading import Completion, Usage

FIRST_TOKENS_PER_BYTE: Final = 0.3
"""English has 0.25, German 0.3, Chinese 0.35, code 0.35. Rather too many than too few: what is left out was said long ago."""

FEWEST_PER_BYTE: Final = 0.05
MOST_PER_BYTE: Final = 1.0
TOKENS_OF_A_TURN: Final = 4
"""What a chat template adds."""

WEIGHT: Final = 0.3
"""Of what was counted last: a conversation in another language counts after a few answers."""


class TokenCount:
    """The tokens of one endpoint's models."""

    def __init__(self) -> None:
        self._per_byte = FIRST_TOKENS_PER_BYTE

    def of(self, text: str) -> int:
        """Returns an estimate."""
        return TOKENS_OF_A_TURN + round(len(text.encode(errors="replace")) * self._per_byte)

    def counted(self, chat: Sequence[Mapping[str, object]], completion: Completion) -> Usage:
        """Returns what an answer took: as the endpoint counted it, which counts for later estimates too, else estimated."""
        texts = [f"{text_of(turn.get('content') or '')}{turn.get('tool_calls') or ''}" for turn in chat]
        size = sum(len(text.encode(errors="replace")) for text in texts)
        read, written = completion.usage.prompt_tokens, completion.usage.completion_tokens
        if read and size and not any(isinstance(turn.get("content"), list) for turn in chat):  # pictures count too
            seen = max(read - TOKENS_OF_A_TURN * len(texts), 0) / size
            seen = min(max(seen, FEWEST_PER_BYTE), MOST_PER_BYTE)
            self._per_byte = (1 - WEIGHT) * self._per_byte + WEIGHT * seen
        return Usage(
            sum(map(self.of, texts)) if read is None else read,
            self.of(completion.text) if written is None else written,
        )
