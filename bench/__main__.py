"""`python -m bench NAME [--json]`: one benchmark, its figures as JSON or as a table."""

from __future__ import annotations

import argparse
import importlib
import json

BENCHMARKS = ("crypto",)


def main() -> None:
    """Run one benchmark by name; each is a module here with `run() -> dict`."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    arguments = parser.parse_args()
    figures = importlib.import_module(f"bench.{arguments.name}").run()
    if arguments.json:
        print(json.dumps(figures))
        return
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
