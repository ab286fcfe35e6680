"""The snippets of docs/testing.md are tests, and pass."""

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from trio.testing import MockClock

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
async def test_a_snippet_passes(mock_clock: MockClock, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)
    exec(compile(code, "docs/testing.md", "exec"), vars(module))  # noqa: S102 - the page's own code
    tests = [one for name, one in vars(module).items() if name.startswith("test_") and inspect.iscoroutinefunction(one)]
    assert tests
    for test in tests:
        await test()
