"""What `make test` says of a test that it skips."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SKIPPING = """
import pytest

def test_of_its_own():
    pytest.skip("without this")

async def test_under_trio():
    pytest.skip("without that")

async def test_that_fails():
    assert False
"""


def test_an_async_test_says_why_it_is_skipped_as_another_does(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING, encoding="utf-8")
    settings = tmp_path / "pytest.ini"
    settings.write_text(
        "[pytest]\ntrio_mode = true\naddopts = -rs -p pytest_trio.plugin -p tests.skips -p no:cacheprovider\n",
        encoding="utf-8",
    )
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-c", settings, tmp_path]
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, encoding="utf-8", check=False)
    assert "test_some.py:5: without this" in done.stdout
    assert "test_some.py:8: without that" in done.stdout
    assert "1 failed, 2 skipped" in done.stdout
