"""What is raised in an owner's lifespan is theirs to mend, or may be over at the next try."""

from collections.abc import Callable
from pathlib import Path

import pytest

from workers.process.loading import CannotLoad, load_agent
from workers.process.start_errors import is_the_owners_to_mend

pytestmark = pytest.mark.pure


def raised_by(file: Path, code: str, **names: object) -> BaseException:
    """What a file of the owner's raises."""
    try:
        exec(compile(code, str(file), "exec"), dict(names))  # noqa: S102 - an owner's code
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("it raises nothing")


def library(directory: Path, code: str) -> Callable[[], object]:
    names: dict[str, Callable[[], object]] = {}
    file = directory / ".venv" / "lib" / "site-packages" / "client.py"
    exec(compile(f"def connect():\n    {code}\n", str(file), "exec"), names)  # noqa: S102 - a library's code
    return names["connect"]


@pytest.mark.parametrize(
    ("code", "is_theirs"),
    [
        ("Databse()", True),
        ("import no_such_module", True),
        ("from os import no_such_name", True),
        ("exec('a b')", True),
        ("len(5)", True),
        ("None.connect()", True),
        ("import json; json.loads(5)", False),
        ("raise OSError('no route')", False),
        ("raise TimeoutError", False),
        ("{}['url']", False),
        ("raise ValueError('bad answer')", False),
        ("raise SystemExit(1)", True),
    ],
)
def test_a_mistake_in_lifespan_is_the_owners_to_mend_and_what_a_service_does_is_tried_again(
    tmp_path: Path, code: str, is_theirs: bool
) -> None:
    assert is_the_owners_to_mend(raised_by(tmp_path / "agent.py", code), tmp_path) is is_theirs


@pytest.mark.parametrize("code", ["None.read()", "len(None)", "raise ConnectionError"])
def test_what_a_library_makes_of_an_answer_is_tried_again_also_where_it_lies_beside_the_owners_code(
    tmp_path: Path, code: str
) -> None:
    error = raised_by(tmp_path / "agent.py", "connect()", connect=library(tmp_path, code))
    assert is_the_owners_to_mend(error, tmp_path) is False


def test_a_module_that_is_not_there_is_said_without_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # and off it again, whatever is put before it
    with pytest.raises(CannotLoad) as caught:
        load_agent("nothing_like_this:agent", tmp_path)
    report = caught.value.report
    assert (report.file, report.line) == ("", 0)
    assert report.last_line.startswith(f"there is no module nothing_like_this in {tmp_path}, where this was started")
