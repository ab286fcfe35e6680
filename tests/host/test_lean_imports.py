"""A part of a library is imported without the rest; whoever imports the library afterwards has all of it, once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = "from host.lean_imports import import_parts\nimport_parts('made', ('small',), hidden='taken')\n"
OURS = (
    "import sys\nimport bus.transport.wire\nassert 'redis' not in sys.modules and 'redis.client' not in sys.modules\n"
)


def run(program: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n{program}"],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_library(folder: Path, **files: str) -> None:
    (folder / "made").mkdir()
    for name, text in files.items():
        (folder / "made" / f"{name}.py").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "owners",
    [
        "import redis; print(redis.Redis.__name__)",
        "import redis; print(redis.asyncio.Redis.__name__)",
        "from redis import Redis; print(Redis.__name__)",
        "from redis import *; print(Redis.__name__)",
        "import redis.asyncio; print(redis.asyncio.Redis.__name__)",
        "import redis.asyncio as aioredis; print(aioredis.Redis.__name__)",
        "from redis.asyncio import Redis; print(Redis.__name__)",
        "from redis.commands.json import JSON; import redis; print(redis.Redis.__name__)",
        "import redis, importlib; print(importlib.reload(redis).Redis.__name__)",
        "import redis, inspect; inspect.getsource(redis); print(redis.Redis.__name__)",
        "import redis.exceptions; print(redis.Redis.__name__)",
        "from importlib.metadata import version; version('redis'); from importlib.resources import files; import redis; files(redis); print('Redis')",
    ],
)
def test_an_owner_has_all_of_redis_however_it_is_imported(owners: str) -> None:
    assert run(f"{OURS}{owners}") == "Redis\n"


@pytest.mark.parametrize(
    "statement",
    [
        "with mock.patch.dict(sys.modules): import redis\nimport redis",
        "for name in [n for n in sys.modules if n.split('.')[0] == 'redis']: del sys.modules[name]\nimport redis",
        "import redis; del sys.modules['redis']; import redis",
    ],
)
def test_what_was_taken_out_of_the_modules_is_whole_when_it_is_imported_again(statement: str) -> None:
    program = f"from unittest import mock\n{statement}\nprint(redis.exceptions.ConnectionError is redis.ConnectionError, redis.Redis.__name__)\n"
    assert run(OURS + program) == "True Redis\n"


def test_who_asks_for_its_files_before_it_is_imported_has_them() -> None:
    program = "import pkgutil, importlib.util as u\nspec = u.find_spec('redis')\n"
    asked = "print(len(pkgutil.get_data('redis', '__init__.py')) == len(spec.loader.get_source('redis').encode()), spec.loader.is_package('redis'))\n"
    assert run(OURS + program + asked) == "True True\n"


def test_who_hooks_into_imports_is_asked_first() -> None:
    """As wrapt's hooks are, whose finder stands in front."""
    finder = "class Finder:\n    def find_spec(self, name, path, target=None):\n        if name == 'redis': print('asked')\nsys.meta_path.insert(0, Finder())\n"
    before, after = f"import trio, ssl\n{finder}{OURS}", f"{OURS}{finder}"
    assert run(f"{before}print('then')\nimport redis").endswith("then\nasked\n")
    assert run(f"{after}print('then')\nimport redis").endswith("then\nasked\n")


def test_the_modules_that_both_use_are_there_once() -> None:
    ours = "from bus.transport import wire\nfrom redis.exceptions import ConnectionError as first\n"
    theirs = "import redis\nprint(redis.exceptions.ConnectionError is first is redis.ConnectionError is redis.asyncio.ConnectionError)\n"
    assert run(f"{ours}{theirs}") == "True\n"


@pytest.mark.parametrize(
    "statement", ["from redis import Redis", "from redis.client import Redis", "from redis.asyncio import Redis"]
)
def test_threads_that_import_it_first_all_have_all_of_it(statement: str) -> None:
    """By the import system's own locks, as with a package that nobody has imported a part of."""
    program = f"""
import threading
found, ready = [], threading.Barrier(4)
def one():
    ready.wait()
    {statement}
    found.append(Redis.__name__)
threads = [threading.Thread(target=one, daemon=True) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
print(*found)
"""
    for _ in range(3):
        assert run(f"{OURS}{program}") == "Redis Redis Redis Redis\n"


def test_a_part_comes_without_the_package_and_without_what_is_hidden(tmp_path: Path) -> None:
    small = "try:\n    import taken\nexcept ImportError:\n    taken = None\n"
    made_library(tmp_path, __init__="print('all of it')\nfrom made import large\nwhole = 1\n", small=small, large="")
    (tmp_path / "taken.py").write_text("", encoding="utf-8")
    parts = f"{PARTS}import made.small as small\nprint(small.taken, *sorted(n for n in sys.modules if 'made' in n))\n"
    rest = "import made, taken\nprint(made.whole, made.small is small, made.large.__name__, type(made.__spec__.loader).__name__)\n"
    lines = run(parts + rest, tmp_path).splitlines()
    assert lines[0] == "all of it", "`import made.small` binds `made`, and so imports the package"
    assert lines[1:] == ["None made made.large made.small", "1 True made.large SourceFileLoader"]


def test_the_package_is_not_imported_by_who_takes_names_of_a_part(tmp_path: Path) -> None:
    made_library(tmp_path, __init__="raise SystemExit('run')", small="name = 7\n")
    assert run(f"{PARTS}from made.small import name\nprint(name, 'made' in sys.modules)", tmp_path) == "7 False\n"


@pytest.mark.parametrize(
    "small", ["from made import whole\n", "import made\nprint(made.whole)\n", "import made.absent\n"]
)
def test_a_version_whose_parts_need_the_whole_is_imported_whole(tmp_path: Path, small: str) -> None:
    made_library(
        tmp_path,
        __init__="whole = 'whole'\nimport sys\nsys.modules['made.absent'] = sys\nfrom made import small\n",
        small=small,
    )
    assert run(f"{PARTS}from made import small, whole\nprint(whole)", tmp_path).endswith("whole\n")


def test_what_the_package_raises_is_raised_to_who_imports_it_and_the_next_one_tries_again(tmp_path: Path) -> None:
    begin = "import os\nif os.environ.pop('BROKEN', None): raise RuntimeError('broken')\nwhole = 1\n"
    made_library(tmp_path, __init__=begin, small="")
    program = """import os
os.environ["BROKEN"] = "1"
try:
    import made
except RuntimeError as error:
    print(error, "made" in sys.modules)
import made, made.small
print(made.whole, made.small.__name__)
"""
    assert run(PARTS + program, tmp_path) == "broken False\n1 made.small\n"


def test_what_is_there_already_or_not_installed_is_left_alone(tmp_path: Path) -> None:
    made_library(tmp_path, __init__="whole = 1\n", small="print('small')")
    finders = "import made\nbefore = [*sys.meta_path]\n"
    assert (
        run(f"{finders}{PARTS}print('made.small' in sys.modules, sys.meta_path == before)", tmp_path) == "False True\n"
    )
    absent = "from host.lean_imports import import_parts\nimport_parts('absent', ('small',), hidden='taken')\n"
    assert run(f"{absent}print('absent' in sys.modules, 'taken' in sys.modules)") == "False False\n"


def test_one_without_parts_any_more_is_found_where_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made_library(tmp_path, __init__="where = 'first'\n", small="")
    made_library(tmp_path / "other", __init__="where = 'other'\n")
    moved = f"del sys.modules['made.small']\nsys.path.insert(0, {str(tmp_path / 'other')!r})\n"
    assert run(f"{PARTS}{moved}import made\nprint(made.where)", tmp_path) == "other\n"


def test_a_library_that_is_there_is_not_hidden(tmp_path: Path) -> None:
    made_library(tmp_path, __init__="", small="import taken\n")
    (tmp_path / "taken.py").write_text("", encoding="utf-8")
    program = f"import taken\n{PARTS}from made.small import taken as theirs\n"
    assert (
        run(f"{program}print(theirs is taken is sys.modules['taken'], 'made' in sys.modules)", tmp_path)
        == "True False\n"
    )
