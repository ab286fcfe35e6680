"""`python -m supervisor` is the console script `hashee-agent`."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "host" / "entrance.py"), run_name="entrance")

from host.lean_imports import import_without

import_without("structlog", "rich")

from supervisor.cli import main

if __name__ == "__main__":
    main()
