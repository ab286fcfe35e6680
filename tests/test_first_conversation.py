"""One real conversation: relay, keeper, Redis, supervisor, workers as processes; a person with real keys."""

from pathlib import Path

from tests.world import world


async def test_a_person_is_answered_once_each_and_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        texts = [f"message {number}" for number in range(5)]
        for text in texts:
            await ada.say(w.conversations[ada], text)
        await w.all_answered({ada: [f"echo: {text}" for text in texts]})
