"""`python -m bench NAME [--json] [OPTIONS]`: one benchmark, its figures as one line of JSON or laid out for reading."""

from __future__ import annotations

import argparse
import importlib
import json

BENCHMARKS = ("crypto", "hop", "waiting", "pipeline", "budget", "answers", "files")


def main() -> None:
    """Run one benchmark by name; each is a module here with `run(arguments) -> dict`, which reads its own options."""
    parser = argparse.ArgumentParser(prog="python -m bench", epilog="what follows the name belongs to the benchmark")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="[--json] [OPTIONS]")
    chosen = parser.parse_args()
    options = [option for option in chosen.rest if option != "--json"]
    figures = importlib.import_module(f"bench.{chosen.name}").run(options)
    print(json.dumps(figures) if "--json" in chosen.rest else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
