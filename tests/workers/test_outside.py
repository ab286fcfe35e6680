"""What an owner's program is told where the agent does not answer as it should: never that something is sent which may not be."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from workers import BlockingOutside, NotSent

AGENT_ID = "01906abc-0000-7000-8000-000000000001"
RECEIPT = b'{"ok":true,"result":{"conversation_id":"c","id":"outside:1","outcome":"queued","later":1},"later":2}\n'


@contextmanager
def agent_that_answers(directory: Path, *pieces: bytes) -> Iterator[dict[str, str]]:
    """Something on the control socket that reads one request, says this, and hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / "control.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while not connection.recv(65536).endswith(b"\n"):
                    pass
                with suppress(ConnectionError):  # who has heard enough hangs up
                    for piece in pieces:
                        connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield {"HASHEE_STATE_DIR": str(directory), "HASHEE_AGENT_ID": AGENT_ID}
        finally:
            thread.join()


def reason_of(environ: dict[str, str]) -> str:
    with pytest.raises(NotSent) as refused:
        BlockingOutside(environ).send("c", "a secret text")
    assert "secret" not in str(refused.value)
    return refused.value.reason


def test_a_receipt_is_read_in_pieces_and_with_fields_of_a_later_release(tmp_path: Path) -> None:
    with agent_that_answers(tmp_path, RECEIPT[:20], RECEIPT[20:]) as environ:
        receipt = BlockingOutside(environ).send("c", "text")
    assert (receipt.conversation_id, receipt.id, receipt.outcome) == ("c", "outside:1", "queued")


@pytest.mark.parametrize(
    "pieces", [(), (RECEIPT[:30],), (b"no json\n",), (b"x" * (2 << 20),), (b'{"ok":true,"result":[]}\n',)]
)
def test_whatever_is_no_answer_leaves_it_open_whether_it_was_queued(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    with agent_that_answers(tmp_path, *pieces) as environ:
        assert reason_of(environ) == "unknown"


def test_a_refusal_has_its_reason_also_one_of_a_former_release(tmp_path: Path) -> None:
    with agent_that_answers(tmp_path, b'{"ok":false,"error":"no such command here: reload"}\n') as environ:
        assert reason_of(environ) == "refused"


def test_what_is_larger_than_a_request_may_be_is_not_asked(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        with pytest.raises(NotSent) as refused:
            BlockingOutside({"HASHEE_STATE_DIR": str(tmp_path), "HASHEE_AGENT_ID": AGENT_ID}).send("c", "x" * (2 << 20))
        assert refused.value.reason == "text_too_long"


def test_where_no_agent_runs_it_says_so(tmp_path: Path) -> None:
    assert reason_of({"HASHEE_STATE_DIR": str(tmp_path), "HASHEE_AGENT_ID": AGENT_ID}) == "no_agent"


@pytest.mark.parametrize(
    "data", [{"n": 2**64}, ["\ud800"], object()], ids=["over 64 bits", "half a surrogate", "no JSON"]
)
def test_what_no_record_holds_is_not_asked(tmp_path: Path, data: object) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        outside = BlockingOutside({"HASHEE_STATE_DIR": str(tmp_path), "HASHEE_AGENT_ID": AGENT_ID})
        with pytest.raises(NotSent, match="or a number of over 64 bits") as refused:
            outside.remind("c", "digest", data)
        assert refused.value.reason == "bad_message"
