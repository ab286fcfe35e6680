"""Whatever is wrong with the environment is found at the start, by the same code that check-settings runs, or is done without."""

import ast
import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import trio

from bus.settings.reader import SettingsReader
from bus.settings.spool_place import spool_place_of
from tests.supervisor.settings.environment import STORE_KEY, process_environ
from tests.waiting import waiting_for
from tests.world import UP, world

ROOT = Path(__file__).parents[1]
WITHOUT_PIDFD = ROOT / "tests" / "supervisor" / "keeper" / "without_pidfd.py"
PROGRAM = (sys.executable, "-P", "-m", "supervisor")
REDIS = "redis://127.0.0.1:1/0"
LIVES = ("redis: not there yet", "Redis cannot be used")
PATIENCE_SECONDS = 30.0

# Who may look into the environment, and why. Everybody else is given what they need.
READERS = {
    "supervisor/cli/": "the edge: each command reads its settings there, once",
    "workers/__main__.py": "the edge of a worker",
    "workers/llm/model.py": "the agent's language model, made in the owner's code: once, when its worker starts",
    "workers/mcp/server.py": "hands ten harmless variables on to MCP servers that are commands",
    "supervisor/pool/workforce.py": "passes the owner's variables on to the workers, and reads the settings anew for a reload",
    "supervisor/observe/logs.py": "what terminal or journal the log goes to, once at the start",
    "bus/settings/places.py": "where things stand, by the environment",
    "bus/settings/spool_place.py": "where the spool stands, by the environment",
    "workers/process/start_errors.py": "reads nothing of it: says that a handler's own look found no such variable",
    "workers/outside.py": "an owner's own program, which says by the environment whose agent it asks",
    "supervisor/settings/way.py": "reads nothing; its name for a deleted file is os.access",
    "host/code_place.py": "where the code is found, once at the start",
    "host/current_directory.py": "where a process stands",
    "host/entrance.py": "what of the owner's hides ours, before anything else",
    "host/embedded.py": "passes five harmless variables on to Redis",
    "sandbox/": "for first steps and tests",
}
READING = {
    ("os", "environ"),
    ("os", "environb"),
    ("os", "getenv"),
    ("os", "getcwd"),
    ("Path", "home"),
    ("Path", "cwd"),
    ("tempfile", "gettempdir"),
    ("ssl", "create_default_context"),
    ("pwd", "getpwuid"),
    ("os", "getlogin"),
}
HOMES = {"expanduser", "home_directory"}
OPENING = {"Path", "open", "os.open", "os.readlink", "os.listdir"}
NEEDS_A_FOLDER = {"mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile"}


def trees(words: Iterable[str]) -> Iterator[tuple[str, ast.AST]]:
    """Of each file of ours that has one of these words in it; the others are not parsed."""
    wanted = re.compile("|".join(map(re.escape, sorted(words))))
    for package in ("host", "bus", "crypto", "workers", "supervisor", "sandbox"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if wanted.search(text := path.read_text(encoding="utf-8")):
                yield str(path.relative_to(ROOT)), ast.parse(text)


@pytest.mark.pure
def test_the_environment_is_read_in_few_places_for_a_reason_each() -> None:
    found = {
        name
        for name, tree in trees({attribute for _, attribute in READING} | HOMES)
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr) in READING
        )
        or (isinstance(node, ast.Attribute) and node.attr in HOMES)
    }
    assert [name for name in found if not name.startswith(tuple(READERS))] == []


@pytest.mark.pure
def test_proc_is_read_in_one_place() -> None:
    found = {
        name
        for name, tree in trees(["/proc"])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in OPENING
        if any(isinstance(part, ast.Constant) and str(part.value).startswith("/proc") for part in ast.walk(node))
    }
    assert found == {"host/proc.py"}


@pytest.mark.pure
def test_no_temporary_file_is_made_where_the_environment_says() -> None:
    for name, tree in trees(NEEDS_A_FOLDER):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NEEDS_A_FOLDER:
                has_folder = any(keyword.arg == "dir" for keyword in node.keywords)
                assert has_folder or name.startswith("sandbox/"), f"{name}:{node.lineno}"


@pytest.mark.pure
def test_no_client_of_http_looks_into_the_environment() -> None:
    for name, tree in trees(["AsyncClient"]):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "AsyncClient":
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                trusts = cast(ast.Constant, given.get("trust_env", ast.Constant(True))).value
                assert trusts is False, f"{name}:{node.lineno}"


@dataclass(frozen=True)
class Spoiled:
    """`names`: of what a refusal has to name one; empty where the thing is to be done without. `code`: runs in every Python."""

    environ: dict[str, str] = field(default_factory=dict)
    names: str = ""
    before: tuple[str, ...] = ()
    code: str = ""
    home: bool = True


NO_PASSWD = "import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n"
NO_TMP = "import tempfile\ndef gettempdir(): raise FileNotFoundError(2, 'No usable temporary directory')\ntempfile.gettempdir = gettempdir\n"
IN_A_DELETED = ("/bin/sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"')
REFUSED = {"EPERM": errno.EPERM, "ENOSYS": errno.ENOSYS}
SPOILED = {
    "a SOCKS proxy": Spoiled({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "ALL_PROXY"),
    "a malformed port": Spoiled({"HTTP_PROXY": "http://p:port"}),
    "a malformed port that counts": Spoiled({"HTTPS_PROXY": "http://p:port"}, "HTTPS_PROXY"),
    "an unknown scheme": Spoiled({"https_proxy": "gopher://p:1"}, "https_proxy"),
    "no certificates": Spoiled({"SSL_CERT_FILE": "/nowhere/at/all"}, "SSL_CERT_FILE"),
    "other libraries' variables": Spoiled(
        {
            "REQUESTS_CA_BUNDLE": "/nowhere",
            "SSLKEYLOGFILE": "/nowhere/keys",
            "PROMETHEUS_MULTIPROC_DIR": "/nowhere/metrics",
            "PYTHONWARNINGS": "default",
            "NO_COLOR": "1",
        }
    ),
    "no directory for sockets": Spoiled(
        {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": "/nowhere", "TMPDIR": "/nowhere"}, code=NO_TMP
    ),
    "no home": Spoiled(code=NO_PASSWD, home=False),
    "a home that is none": Spoiled({"HOME": "relative"}, code=NO_PASSWD, home=False),
    "a deleted directory": Spoiled(before=IN_A_DELETED),
    "no pidfd (EPERM)": Spoiled(before=(sys.executable, str(WITHOUT_PIDFD), str(errno.EPERM))),
    "no pidfd (ENOSYS)": Spoiled(before=(sys.executable, str(WITHOUT_PIDFD), str(errno.ENOSYS))),
    "no standard streams but stderr": Spoiled(before=("/bin/sh", "-c", 'exec "$0" "$@" <&- >&-')),
    "a watchdog of no time": Spoiled({"WATCHDOG_USEC": "0", "NOTIFY_SOCKET": "/nowhere"}),
}
COMMANDS = (("check-settings",), ("supervisor",), ("worker",), ("status",), ("dead", "list"))


def environ_of(spoiled: Spoiled, folder: Path) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(spoiled.code, encoding="utf-8")
    environ = process_environ(
        folder / "state",
        HASHEE_BASE_URL="https://relay.test",
        HASHEE_REDIS_URL=REDIS,
        HASHEE_STORE_KEY=STORE_KEY,
        HASHEE_BUS_KEY=STORE_KEY,
        HASHEE_WORKERS="0",
        PYTHONPATH=f"{folder}:{ROOT}",
    )
    if not spoiled.home:
        del environ["HOME"]
    return environ | spoiled.environ


async def outcome(command: Sequence[str], spoiled: Spoiled, folder: Path) -> tuple[int | None, str]:
    """Exit status and what it said; None for one that runs, and waits for Redis."""
    log_path = folder / f"{command[0]}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - does not block for long
            [*spoiled.before, *PROGRAM, *command],
            cwd=folder / command[0],
            env=environ_of(spoiled, folder) | {"HASHEE_STATE_DIR": str(folder / command[0] / "state")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with waiting_for("the agent to live or to refuse its environment", PATIENCE_SECONDS):
            while process.poll() is None:
                said = log_path.read_text(encoding="utf-8")
                if any(line in said for line in LIVES):
                    return None, said
                await trio.sleep(0.02)
        return process.returncode, log_path.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", SPOILED)
async def test_a_spoiled_environment_is_refused_at_the_start_by_name_or_done_without(name: str, tmp_path: Path) -> None:
    spoiled, ended = SPOILED[name], dict[str, tuple[int | None, str]]()

    async def run(command: Sequence[str]) -> None:
        ended[command[0]] = await outcome(command, spoiled, tmp_path)

    async with trio.open_nursery() as nursery:
        for command in COMMANDS:
            (tmp_path / command[0]).mkdir()
            nursery.start_soon(run, command)
    for status, said in ended.values():
        assert status not in (70, -6, -11), said
        assert "crashed" not in said, said
        assert "Traceback" not in said, said
    for name_of_command in ("check-settings", "supervisor"):
        status, said = ended[name_of_command]
        assert status == (78 if spoiled.names else 0 if name_of_command == "check-settings" else None), said
        if spoiled.names:
            fault = "(is not set|is malformed|cannot be used): expected "
            assert re.match(f"hashee-agent: {spoiled.names} {fault}", said), said
            assert said.count("\n") == 1
            assert not any(value in said for value in spoiled.environ.values())
    assert ended["worker"][0] is None, ended["worker"]
    assert ended["status"][0] == 1, ended["status"]
    assert ended["dead"][0] == 1, ended["dead"]


def test_without_a_home_the_state_directory_has_to_be_named(tmp_path: Path) -> None:
    environ = environ_of(SPOILED["no home"], tmp_path)
    del environ["HASHEE_STATE_DIR"]
    for command in (["check-settings"], ["up"], ["status"]):
        done = subprocess.run(
            [*PROGRAM, *command], env=environ, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 78
        assert done.stderr.startswith("hashee-agent: HASHEE_STATE_DIR is not set")
        assert done.stderr.count("\n") == 1


LIMITED = "import os, resource as r, sys; r.setrlimit(r.{0}, ({1}, {2})); os.execvp(sys.argv[1], sys.argv[1:])"
UNUSABLE = {
    "few open files": (
        LIMITED.format("RLIMIT_NOFILE", 64, 64),
        {"HASHEE_REDIS_URL": REDIS},
        "The limit of open files (ulimit -n)",
        ("check-settings", "supervisor", "worker"),
    ),
    "small files": (
        LIMITED.format("RLIMIT_FSIZE", 4096, 4096),
        # Of one's own is no file here. Python 3.11 keeps the part of a compiled module that it could write, and reads that the next time.
        {"HASHEE_REDIS_URL": "", "PYTHONDONTWRITEBYTECODE": "1"},
        "The limit of a file's size (ulimit -f)",
        ("check-settings", "up"),
    ),
    "a hidden boot": (
        "import ctypes, os, sys; l = ctypes.CDLL(None); "
        "sys.exit(77) if l.unshare(0x20000) or l.mount(b'none', b'/', None, 0x44000, None) "
        "or l.mount(b'none', b'/proc/sys', b'tmpfs', 0, None) else os.execvp(sys.argv[1], sys.argv[1:])",
        {},
        "/proc/sys/kernel/random/boot_id",
        ("check-settings", "supervisor"),
    ),
    "a spool in a file": (
        "",
        {"HASHEE_SPOOL_DIR": "/dev/null/spool", "HASHEE_WORKERS": "1"},
        "HASHEE_SPOOL_DIR",
        ("check-settings", "supervisor", "worker"),
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_would_fail_in_the_midst_of_the_work_is_told_at_the_start(name: str, tmp_path: Path) -> None:
    code, more, named, commands = UNUSABLE[name]
    before = [sys.executable, "-S", "-c", code] if code else []
    environ = {**environ_of(Spoiled(), tmp_path), **more}
    for command in commands:
        program = [*before, *PROGRAM, *command.split()]
        done = subprocess.run(program, env=environ, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        if done.returncode == 77:
            pytest.skip("/proc/sys cannot be hidden here: it needs root and a mount namespace")
        assert done.returncode == 78, (command, done.stderr)
        assert done.stderr.startswith(f"hashee-agent: {named} cannot be used: expected "), (command, done.stderr)
        assert done.stderr.count("\n") == 1, (command, done.stderr)


def test_where_no_workers_run_nobody_needs_a_spool(tmp_path: Path) -> None:
    """A supervisor of the Kubernetes overlays has none, and shared its settings with the workers' pods."""
    environ = {**environ_of(Spoiled(), tmp_path), "HASHEE_SPOOL_DIR": "/dev/null/spool", "HASHEE_WORKERS": "0"}
    done = subprocess.run(
        [*PROGRAM, "check-settings"], env=environ, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_spool_that_fails_later_stops_no_worker_and_no_supervisor_that_is_started_again() -> None:
    reader = SettingsReader({"HASHEE_SPOOL_DIR": "/dev/null/spool", "HOME": "/home/owner"})
    assert spool_place_of(reader, "agent").folder == Path("/dev/null/spool")
    reader.finish()


def test_a_limit_of_open_files_that_may_be_raised_is_raised(tmp_path: Path) -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
        "from supervisor.settings.process_limits import ready_limits; ready_limits()\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "256\n"


def test_a_worker_without_home_state_directory_and_temporary_folder_needs_none_until_it_sends_a_file(
    tmp_path: Path,
) -> None:
    environ = environ_of(Spoiled(code=NO_PASSWD + NO_TMP, home=False), tmp_path)
    del environ["HASHEE_STATE_DIR"]
    command = [*PROGRAM, "check-settings", "--worker"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_takes_nothing_is_said_and_nobody_is_told_of_a_crash(tmp_path: Path) -> None:
    environ = environ_of(Spoiled(), tmp_path)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        for command, out, err in (("version", full, subprocess.PIPE), ("nonsense", subprocess.PIPE, full)):
            done = subprocess.run(
                [*PROGRAM, command], env=environ, cwd=tmp_path, stdout=out, stderr=err, encoding="utf-8", check=False
            )
            if out is full:
                assert (done.returncode, done.stderr) == (
                    74,
                    "hashee-agent: the output cannot be written: No space left on device\n",
                )
            else:
                assert done.returncode == 2  # as where stderr can be written


def test_the_commands_that_become_the_sandbox_say_it_too(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(
        """from workers import Agent

agent = Agent()


@agent.on_message()
def answer(message):
    return message.text
""",
        encoding="utf-8",
    )
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        for command in (["console"], ["replay", "--help"]):
            done = subprocess.run(
                [*PROGRAM, *command],
                env=environ_of(Spoiled(), tmp_path),
                cwd=tmp_path,
                input="hello\n",
                stdout=full,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                check=False,
            )
            assert done.stderr == "hashee-agent: the output cannot be written: No space left on device\n"
            assert done.returncode == 74


def test_a_socket_that_fits_nowhere_is_said_with_the_remedy(tmp_path: Path) -> None:
    environ = environ_of(Spoiled({"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": "/proc/nowhere"}), tmp_path)
    environ["HASHEE_STATE_DIR"] = str(tmp_path / ("long" * 30))
    for command in ("check-settings", "up"):
        done = subprocess.run(
            [*PROGRAM, command], env=environ, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 78, done.stderr
        assert "/proc/nowhere" in done.stderr
        assert "HASHEE_STATE_DIR" in done.stderr


@pytest.mark.parametrize("number", REFUSED.values(), ids=REFUSED)
async def test_an_agent_without_pidfds_answers_survives_kills_and_drains(tmp_path: Path, number: int) -> None:
    program = (sys.executable, str(WITHOUT_PIDFD), str(number), *UP)
    async with world(tmp_path, program=program, HASHEE_WORKERS="1") as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], "one")
        await w.all_answered({ada: ["echo: one"]})
        for kill in (w.worker_pids()[0], w.supervisor_pid(), w.redis_pid()):
            await w.kill(kill)
            await w.until(w.worker_pids)
        await ada.say(w.conversations[ada], "two")
        await w.all_answered({ada: ["echo: one", "echo: two"]})
        assert w.up is not None
        up = w.up
    assert up.exit_code == 0


async def test_an_agent_whose_directory_is_deleted_starts_and_answers(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    program = ("/bin/sh", "-c", f'cd {tmp_path / "here"} && rmdir {tmp_path / "here"} && exec "$0" "$@"', *UP)
    async with world(tmp_path, program=program, HASHEE_WORKERS="1", PYTHONPATH=str(ROOT)) as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], "one")
        await w.all_answered({ada: ["echo: one"]})
        await w.kill(w.supervisor_pid())
        await ada.say(w.conversations[ada], "two")
        await w.all_answered({ada: ["echo: one", "echo: two"]})


def test_python_itself_finds_what_the_table_spoils(tmp_path: Path) -> None:
    """The injections inject: else the rows above would prove nothing."""
    (tmp_path / "sitecustomize.py").write_text(NO_PASSWD + NO_TMP, encoding="utf-8")
    program = "import tempfile, pathlib\nfor call in (tempfile.gettempdir, pathlib.Path.home):\n try: call()\n except (OSError, RuntimeError, KeyError): print('spoiled')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == "spoiled\nspoiled\n"
    program = "import os\ntry: os.pidfd_open(os.getpid())\nexcept OSError as error: print(error.errno)"
    for number in REFUSED.values():
        command = [sys.executable, str(WITHOUT_PIDFD), str(number), sys.executable, "-c", program]
        done = subprocess.run(command, env=dict(os.environ), capture_output=True, encoding="utf-8", check=True)
        assert done.stdout == f"{number}\n"
