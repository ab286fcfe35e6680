"""How the modules of supervisor/ and their tests are named in the list."""

from __future__ import annotations


def module(name: str) -> str:
    return f"supervisor/{name}.py"


def tests(*names: str) -> tuple[str, ...]:
    """Of supervisor/'s own by what they are of, of others by their place below tests/."""
    return tuple(f"tests/{name}.py" if "/" in name else f"tests/supervisor/test_{name}.py" for name in names)
