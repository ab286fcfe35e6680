"""Loads the Lua operations: puts in front of each `.lua` file the parts of the common library that it uses, and makes its SHA-1.

Redis keeps scripts only until it restarts, so every new connection loads all of them first (DESIGN rule 18).
"""

import enum
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple, Self

import hiredis
import msgspec

Argument = bytes | str | int | float
WORDS_BEFORE_KEYS = 3  # EVALSHA, the SHA-1, how many keys
MOST_PACKED_BOARDS = 1000  # 1 to 2 KB each, four for a conversation that is active

WRITES = frozenset(
    [
        "APPEND",
        "DECR",
        "DECRBY",
        "DEL",
        "EXPIRE",
        "HDEL",
        "HINCRBY",
        "HSET",
        "HSETNX",
        "INCR",
        "INCRBY",
        "LPOP",
        "LPUSH",
        "LREM",
        "LSET",
        "LTRIM",
        "PEXPIRE",
        "PUBLISH",
        "RENAME",
        "RPUSH",
        "SADD",
        "SET",
        "SREM",
        "UNLINK",
        "XACK",
        "XADD",
        "XCLAIM",
        "XDEL",
        "XGROUP",
        "ZADD",
        "ZPOPMAX",
        "ZPOPMIN",
        "ZREM",
        "ZREMRANGEBYRANK",
        "ZREMRANGEBYSCORE",
    ]
)
"""The Redis commands that our operations write with."""

_CALL = re.compile(r"redis\.call\('([A-Z]+)'(?:, ('[A-Z]+'|[A-Z_]+)(?=[,)]))?")
_BOARD = re.compile(r"^-- BOARD (.*)$", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
_RARE = re.compile(r"^-- RARE (.*)$", re.MULTILINE)
_CONSTANT = re.compile(r"^local ([A-Z_]+) = ('[^'\n]*'|[\w*^. -]+?)(?: *--.*)?\n", re.MULTILINE)
_NAME = re.compile(r"\b[A-Z][A-Z_]+\b")
_BODY = ""
_RARELY = "rarely"
_FUNCTION = re.compile(r"^(local function (\w+)\(.*?^end\n)", re.MULTILINE | re.DOTALL)


class Script(msgspec.Struct, frozen=True):
    """One operation: its text as Redis loads it, and the SHA-1 by which it is called.

    `board`: which keys of the board (bus/records/keys.py) it uses, out of `board_size`; empty and 0 if it is not about a conversation.
    """

    name: str
    text: bytes
    sha1: bytes
    board: tuple[int, ...] = ()
    board_size: int = 0

    def of_the_board(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Returns the keys of the board that the operation uses. `keys`: the whole board and the operation's own keys."""
        return tuple(keys[place] for place in self.board)

    def own(self, keys: Sequence[str]) -> Sequence[str]:
        """Returns the operation's own keys behind the board: all of `keys` if it has no board."""
        return keys[self.board_size :]


class Rights(enum.Enum):
    """Whether the rights of our Redis user can change while the agent runs."""

    MAY_CHANGE = enum.auto()
    STAND = enum.auto()
    """They cannot: in the private Redis, which nobody else can reach."""


class Scripts:
    """All operations by name."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self._scripts = scripts
        self._heads: dict[tuple[str, str, int], bytes] = {}

    @classmethod
    def load(cls, rights: Rights = Rights.MAY_CHANGE) -> Self:
        """Reads the package's `.lua` files. If the `rights` are fixed no operation checks them, which is an eighth of what a message costs Redis."""
        folder = resources.files("bus") / "scripts"
        library = _Library((folder / "_library.lua").read_text(encoding="utf-8"))
        scripts = {}
        for family in folder.iterdir():
            for file in family.iterdir() if family.is_dir() else ():
                if file.name.endswith(".lua"):
                    name = file.name.removesuffix(".lua")
                    scripts[name] = _made(name, library, file.read_text(encoding="utf-8"), rights)
        return cls(scripts)

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def call(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
        """Returns the command (RESP) that calls an operation with those of `keys` that it uses."""
        script = self._scripts[name]
        if not script.board:
            return packed(("EVALSHA", script.sha1, len(keys), *keys, *arguments))
        words = (*keys[script.board_size :], *arguments)
        count = WORDS_BEFORE_KEYS + len(script.board) + len(words)
        return b"*%d\r\n%b%b" % (count, self._head(script, keys), _words(words))

    def _head(self, script: Script, keys: Sequence[str]) -> bytes:
        """Returns the packed beginning of the command up to the operation's own keys, kept for each conversation (named by the first key).

        Packing the board took a fifteenth of our CPU for a job.
        """
        name = (script.name, keys[0], len(keys))
        head = self._heads.get(name)
        if head is None:
            if len(self._heads) >= MOST_PACKED_BOARDS:
                self._heads.clear()
            board = script.of_the_board(keys)
            how_many = len(board) + len(script.own(keys))
            head = self._heads[name] = _words(("EVALSHA", script.sha1, how_many, *board))
        return head

    def all(self) -> list[Script]:
        """Returns every operation."""
        return list(self._scripts.values())


def packed(command: tuple[Argument, ...]) -> bytes:
    """Returns a command as it is sent (RESP)."""
    whole: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows no union in a tuple
    return whole


def _words(words: tuple[Argument, ...]) -> bytes:
    """Returns words of a command as they are sent, without the line that counts them."""
    whole = packed(words)
    return whole[whole.index(b"\n") + 1 :]


class _Library:
    """The common library, parsed once for all operations: parsing it for each took every process 0.15 s at its start.

    `board`: the names of the keys. `rare`: functions for what happens seldom. `constants`: what stands for their names in a script.
    `head`: the text in front of the functions. `functions`: their source by name. `words`: the names and numbers in each function.
    """

    def __init__(self, text: str) -> None:
        self.board = [one for line in _BOARD.findall(text) for one in line.split()]
        self.rare = frozenset(one for line in _RARE.findall(text) for one in line.split())
        self.constants: dict[str, str] = {}
        for name, value in _CONSTANT.findall(text):
            self.constants[name] = (
                value if value.startswith("'") or value.isdigit() else f"({self.with_constants(value)})"
            )
        # Each script has the text between the functions in front: without its comments, which were half of what each new connection loads.
        text = self.with_constants(_CONSTANT.sub("", _COMMENT.sub("", text)))
        pieces = _FUNCTION.split(text)  # text, function, its name, text, function, its name, …, text
        self.head = "".join(pieces[::3]).strip()
        self.functions = dict(zip(pieces[2::3], pieces[1::3], strict=True))
        self.words = {name: _words_in(function) for name, function in self.functions.items()}

    def with_constants(self, code: str) -> str:
        """Returns code with their values in place of the names: Lua copies a variable of the script into each function that uses it, at each call."""
        return _NAME.sub(lambda found: self.constants.get(found[0], found[0]), code)


def _made(name: str, library: _Library, body: str, rights: Rights) -> Script:
    parts = _put_together(library, library.with_constants(body))
    words = _words_in("\n".join(parts))
    board = [place for place, one in enumerate(library.board) if one in words]
    keys = {library.board[place]: number for number, place in enumerate(board, start=1)}
    looks = _may_write("\n".join(parts), keys) if rights is Rights.MAY_CHANGE else []
    lines = [*_lines_of(keys, parts.always + parts.body), f"local OWN = {len(board) + 1}", *looks, parts.always]
    if parts.rarely:
        # The keys once more: whatever a function takes from around it costs each call, whether or not it runs.
        lines += [f"function {_RARELY}(what, ...)", *_lines_of(keys, parts.rarely), parts.rarely, "end"]
    text = "\n".join([*lines, parts.body]).encode()
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()  # Redis names scripts so
    return Script(name, text, digest.encode(), tuple(board), len(library.board) if board else 0)


def _lines_of(keys: dict[str, int], code: str) -> list[str]:
    words = _words_in(code)
    return [f"local {name} = KEYS[{number}]" for name, number in keys.items() if name in words]


def commands_of(script: Script) -> frozenset[str]:
    """Returns the Redis commands that an operation may run."""
    return frozenset(name for name, _ in _calls(script.text.decode()))


def _calls(code: str) -> set[tuple[str, str]]:
    """Returns the commands in the code, each with the first word after its name if that is a literal or a variable, else ''."""
    return set(_CALL.findall(re.sub(r"--.*", "", code)))


def _may_write(operation: str, keys: dict[str, int]) -> list[str]:
    """Returns lines that end a writing operation at its beginning if this user may not run one of its commands.

    A script that is refused in its middle keeps what it has written: half an operation. An ACL cannot change while a script runs. An
    operation of a single command needs no check. Each command is asked about with a key, without which Redis 7.0 crashes; whether this
    user may use the keys was checked when the script was called.
    """
    calls = sorted(_calls(operation))
    names = {name for name, _ in calls}
    if len(names) < 2 or names.isdisjoint(WRITES):
        return []
    return ["local may = redis.acl_check_cmd", *dict.fromkeys(_look(name, first, keys) for name, first in calls)]


def _look(name: str, first: str, keys: dict[str, int]) -> str:
    """Returns the line that checks one command. `first`: the first word after its name, as it stands in the script. `keys`: their numbers by name."""
    words, shown = f"'{name}', KEYS[1]", name
    if name == "TIME":
        words = "'TIME'"
    elif name == "PUBLISH":
        words = f"'{name}', KEYS[{keys[first]}]"
    elif name == "RENAME":
        words = f"'{name}', KEYS[1], KEYS[1]"
    elif first.startswith("'"):
        words, shown = f"'{name}', {first}, KEYS[1]", f"{name}|{first[1:-1]}"
    return f"if not may({words}) then return redis.error_reply(\"NOPERM the '{shown.lower()}' command\") end"


class _Parts(NamedTuple):
    """An operation: the functions that are made at each call, what is in `rarely` ('' if there is none), and what it does."""

    always: str
    rarely: str
    body: str


def _put_together(library: _Library, body: str) -> _Parts:
    """Returns an operation with the part of the library that it uses: Lua makes every function anew at each call, which took a fifth of its time.

    Unused functions are left out. A function stands inside of the innermost one by way of which alone it is used, and is made only when that
    runs. Those for what happens seldom, and all that only they use, stand inside of one more, `rarely`, which is called in their place.
    """
    inside, rare = _places(library, body, library.rare)
    if len(rare) < 2:  # one is no more to make than `rarely`
        inside, rare = _places(library, body, frozenset())

    def by_way_of_rarely(code: str) -> str:
        return _call_of(rare).sub(lambda call: f"{_RARELY}('{call[1]}'{call[2] or ', '}", code) if rare else code

    def whole(name: str, is_rare: bool) -> str:
        head, newline, rest = library.functions[name].partition("\n")
        return head + newline + all_in(name, is_rare) + (rest if is_rare else by_way_of_rarely(rest))

    def all_in(place: str, is_rare: bool) -> str:
        return "".join(whole(name, is_rare) for name in library.functions if inside.get(name) == place)

    always = f"{library.head}\n" + (f"local {_RARELY}\n" if rare else "") + all_in(_BODY, is_rare=False)
    choice = [f"if what == '{name}' then return {name}(...) end" for name in library.functions if name in rare]
    return _Parts(always, all_in(_RARELY, is_rare=True) + "\n".join(choice), by_way_of_rarely(body))


def _call_of(names: frozenset[str]) -> re.Pattern[str]:
    """Returns what finds their calls: the name, and the bracket that ends a call without arguments."""
    return re.compile(rf"\b({'|'.join(sorted(names))})\((\)?)")


def _places(library: _Library, body: str, rare: frozenset[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Returns in which function each used one stands (the dominator of its users), and which of the `rare` ones are called from elsewhere.

    A function uses only those above it, so the last is looked at first.
    """
    inside = {_RARELY: _BODY}
    called = set()
    words = {_BODY: _words_in(body)}

    def way_to(name: str) -> list[str]:
        return [name] if name == _BODY else [*way_to(inside[name]), name]

    for name in reversed(library.functions):
        ways = [way_to(user) for user, used in words.items() if name in used]
        if not ways:
            continue
        if name in rare and any(_RARELY not in way for way in ways):
            called.add(name)
            ways = [way if _RARELY in way else [_BODY, _RARELY] for way in ways]
        words[name] = library.words[name]
        inside[name] = [steps[0] for steps in zip(*ways, strict=False) if len(set(steps)) == 1][-1]
    return inside, frozenset(called)


def _words_in(code: str) -> frozenset[str]:
    """Returns the names and numbers in code, outside of its comments."""
    return frozenset(re.findall(r"\w+", re.sub(r"--.*", "", code)))
