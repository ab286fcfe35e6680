"""The owner's directory comes first when their handler is imported, and must not hide our own packages.

A folder `workers/` of theirs would silently be imported in place of ours, in some processes and not in others.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import supervisor

OURS = ("workers", "crypto", "bus", "supervisor")


class PackageShadowed(Exception):
    """A file or folder of the current directory has the name of one of our packages."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(f"{path} hides hashee-agent's own package {name}: rename it or start from elsewhere")
        self.name = name
        self.path = path


def refuse_shadows(directory: Path | None = None, installed: Path | None = None) -> None:
    """Raises `PackageShadowed` when, with `directory` first, one of our packages would be another one.

    `installed` is where our packages are; both default to what this process sees.
    """
    directory = (directory or Path.cwd()).resolve()
    installed = (installed or Path(supervisor.__path__[0]).parent).resolve()
    for name in OURS:
        found = PathFinder.find_spec(name, [str(directory)])
        if found is None:
            continue
        if found.origin is None and str(installed) in sys.path:
            continue  # a folder without __init__.py gives way to a package further down the path
        path = Path(found.origin) if found.origin else directory / name
        if installed / name not in (path, path.parent):
            raise PackageShadowed(name, directory / name if (directory / name).is_dir() else path)
