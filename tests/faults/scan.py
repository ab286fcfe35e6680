"""Finds every loop of the product over something outside of it: what does not end by itself, and what asks Redis or the relay in turns.

A loop is named `file:Class.function`; a function with two of them has one name. What is found:

- `while` whose condition is a constant, or whose body or condition awaits, reads, writes or waits;
- `async for`;
- `for` whose body awaits a command, a script or a call of the relay's REST interface;
- the target of a thread.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("host", "bus", "workers", "supervisor")
# What blocks a thread: a read, a write, a wait.
BLOCKING = frozenset({"wait", "recv", "call", "get", "read", "read_for", "sendall", "_receive", "sleep", "select"})
# What leaves the process within a `for`.
ASKING = frozenset({"command", "script", "_call", "post", "exchange"})

# A file without a line that begins so has no loop of a kind that is found, and is not parsed.
_HAS_A_LOOP = re.compile(r"^\s*(while|async for|for)\b", re.MULTILINE)


def loops() -> dict[str, int]:
    """The name of each function with such a loop, and the line of its first."""
    found: dict[str, int] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if not _HAS_A_LOOP.search(text):
                continue
            for name, line in _in_module(ast.parse(text)):
                found.setdefault(f"{path.relative_to(ROOT)}:{name}", line)
    return found


def threads() -> dict[str, str]:
    """Each place in the product that makes a thread: `file:Class.function`, and the thread's name."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if "Thread" not in text and "Timer" not in text:
                continue
            # a Timer of ours is a record, and no thread
            kinds = {"Thread", "Timer"} if re.search(r"^(import|from) threading\b", text, re.MULTILINE) else {"Thread"}
            for name, node in _nodes(ast.parse(text)):
                if isinstance(node, ast.Call) and _called(node) in kinds:
                    given = next((word.value for word in node.keywords if word.arg == "name"), None)
                    found[f"{path.relative_to(ROOT)}:{name}:{ast.unparse(given) if given else 'unnamed'}"] = (
                        ast.literal_eval(given) if isinstance(given, ast.Constant) else ""
                    )
    return found


def _in_module(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for name, node in _nodes(tree):
        if (
            isinstance(node, ast.AsyncFor)
            or (isinstance(node, ast.While) and _is_over_the_outside(node))
            or (isinstance(node, ast.For) and any(_asks(inner) for inner in ast.walk(node)))
        ):
            yield name, node.lineno


def _nodes(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _nodes(child, f"{name}.{child.name}" if name else child.name)
        else:
            yield name, child
            yield from _nodes(child, name)


def _is_over_the_outside(loop: ast.While) -> bool:
    if isinstance(loop.test, ast.Constant):
        return True
    return any(
        isinstance(node, ast.Await) or (isinstance(node, ast.Call) and _called(node) in BLOCKING)
        for node in ast.walk(loop)
    )


def _asks(node: ast.AST) -> bool:
    return isinstance(node, ast.Await) and isinstance(node.value, ast.Call) and _called(node.value) in ASKING


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""
