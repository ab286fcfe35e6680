"""A trial that was asked for and cannot run here does not end as if it had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        ("on_systemd", "without systemd-nspawn, nsenter, setpriv, mount: apt-get install"),
        ("systemd_under_traffic", "apt-get install --no-install-recommends mount systemd-container util-linux"),
        ("in_containers", "apt-get install --no-install-recommends debootstrap podman runc"),
        ("with_prometheus", "apt-get install --no-install-recommends prometheus"),
    ],
)
def test_what_is_missing_is_named_with_its_package_and_the_status_is_not_0(
    tmp_path: Path, trial: str, says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/trials/deploy/{trial}.py"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stdout
    assert "Traceback" not in done.stdout
    assert "passed" not in done.stdout
    assert "skipped" not in done.stdout
