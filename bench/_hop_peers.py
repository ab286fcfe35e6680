"""The peers of `bench hop`: an environment for each, made once from its pinned requirements, and how it is started."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from bench._children import BenchmarkFailed
from bench._hop_turn import Contender

HERE = Path(__file__).parent / "peers"
CACHE = Path(sys.prefix) / "peers"
PEERS = ("dramatiq", "taskiq", "arq", "faststream")
INSTALL_SECONDS = 300.0
THREADS = "8"


def peer(name: str) -> Contender:
    """Its environment is made if it is not there. Raises `BenchmarkFailed` with the reason that pip gives."""
    if name not in PEERS:
        raise BenchmarkFailed(f"no peer of this name; there are {', '.join(PEERS)}")
    python = str(_environment(name) / "bin" / "python")
    script = str(HERE / f"with_{name}.py")
    one_worker = (python, script, "worker")
    command_line = (python, "-m", name)
    workers: dict[str, tuple[tuple[str, ...], ...]] = {
        "dramatiq": ((*command_line, "with_dramatiq", "--processes=2", f"--threads={THREADS}", f"--path={HERE}"),),
        "taskiq": ((*command_line, "worker", "with_taskiq:broker", "--workers=2", f"--app-dir={HERE}"),),
        "arq": (one_worker, one_worker),
        "faststream": (one_worker, one_worker),
    }
    return Contender(name, workers[name], (python, script))


def _environment(name: str) -> Path:
    requirements = HERE / f"{name}.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    folder = CACHE / name
    stamp = folder / "made-from"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    print(f"installing {name} into {folder}", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
    ]
    try:
        subprocess.run(
            [*pip, "--require-hashes", "--requirement", str(requirements)],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"pip took more than {INSTALL_SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(error.stderr.strip().splitlines()[-1]) from None
    stamp.write_text(wanted, encoding="utf-8")
    return folder
