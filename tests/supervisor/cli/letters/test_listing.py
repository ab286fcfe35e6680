"""What is listed while others come and go."""

from pathlib import Path

from tests.redis_server import redis_server
from tests.supervisor.builders import open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import message_frame


async def test_what_stays_in_quarantine_is_listed_while_others_leave(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest()) as core:
            frames = [message_frame("no envelope", seq=number) for number in range(1, 151)]
            for frame in frames:
                await core.polled(frame)
            leaving, staying = frames[:30], frames[30:]
            listed = []
            async for message in core.quarantine.all():
                listed.append(message.message_id)
                if len(listed) == 30:
                    for frame in leaving:
                        await core.quarantine.drop(frame.message_id)
            assert set(listed) >= {frame.message_id for frame in staying}
