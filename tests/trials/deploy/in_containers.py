"""`make containers`: the image built and the services of compose.yaml run for real, with podman.

Not part of `make test`. No image registry is asked: the base is made by debootstrap, Redis is the server inside our own image. Each
option of a container is what compose.yaml says; only the network is the host's, so that the relay here is reached.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from sandbox.people import connected, make_person
from sandbox.stage import free_port
from tests.trials.deploy.needs import needing
from tests.trials.deploy.on_systemd import saw, there
from tests.trials.deploy.talk import Talk, talking
from tests.waiting import waiting_for

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/docker/compose.yaml").read_text(encoding="utf-8"))
BASE = "docker.io/library/python:made-here"
IMAGE = "localhost/hashee-agent:test"
PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--runtime", "runc")
BUILD_LIMITS = ("--ulimit", "nofile=1024:1024")  # more may not be raised in a container of a container
RUN_LIMITS = (*BUILD_LIMITS, "--ulimit", "nproc=1000:1000")
PATIENCE_SECONDS = 60
SPOOL = "/var/lib/hashee-agent/spool"
HANDLER = """
from workers import Agent, Chat, File, Message

agent = Agent()


@agent.on_message("file")
async def back(message: Message, chat: Chat):
    [file] = message.files
    await chat.reply(File(file.chunks(), name=file.name))


@agent.on_message("text")
async def echo(message: Message, chat: Chat):
    await chat.reply(f"echo: {message.text}")
"""

machine_can = needing({name: name for name in ("podman", "runc", "debootstrap")}, as_root=True)


@dataclass
class Service:
    """A container made from a service of compose.yaml."""

    name: str
    container: str
    started: bool = True

    def logs(self) -> str:
        done = subprocess.run(
            [*PODMAN, "logs", self.container], capture_output=True, text=True, check=False, encoding="utf-8"
        )
        return done.stdout + done.stderr


@dataclass
class Services:
    """`settings`: what .env and the secrets' files would hold."""

    folder: Path
    environment: dict[str, str]
    http_port: int
    files_port: int
    running: list[Service] = field(default_factory=list)

    def start(self, name: str, number: int = 1) -> Service:
        said = COMPOSE["services"][name]
        container = f"hashee-test-{os.getpid()}-{name}-{number}"
        limits = said["deploy"]["resources"]["limits"]
        arguments = ["run", "--detach", "--name", container, "--network=host", *RUN_LIMITS]
        arguments += [
            "--memory",
            limits["memory"].lower(),
            "--cpus",
            limits["cpus"],
        ]
        arguments += ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
        arguments += [part for place in said.get("tmpfs", ()) for part in ("--tmpfs", place)]
        for secret in said.get("secrets", ()):
            arguments += ["--volume", f"{self.folder}/secrets/{secret}:/run/secrets/{secret}:ro"]
        for volume in said.get("volumes", ()):
            arguments += ["--volume", f"hashee-test-{os.getpid()}-{volume}:U"]
        for variable, value in said.get("environment", {}).items():
            arguments += ["--env", f"{variable}={self.environment.get(variable, value)}"]
        podman(*arguments, *self._image_and_command(name, said))
        service = Service(name, container)
        self.running.append(service)
        return service

    def _image_and_command(self, name: str, said: dict[str, Any]) -> list[str]:
        if name != "redis":
            ports = {"HASHEE_HTTP_PORT": self.http_port, "HASHEE_FILES_LISTEN": f"127.0.0.1:{self.files_port}"}
            given = [part for variable, value in ports.items() for part in ("--env", f"{variable}={value}")]
            app = ["--volume", f"{self.folder}/app:/app:ro"]
            return ["--user", said["user"], *given, *app, IMAGE, *said["command"]]
        program = podman(
            "run", "--rm", *RUN_LIMITS, "--network=host", "--entrypoint", "python", IMAGE, "-c", FIND_SERVER
        )
        port = self.environment["HASHEE_REDIS_URL"].rpartition(":")[2].partition("/")[0]
        where = ["--port", port, "--bind", "127.0.0.1", "--dir", "/data"]
        return ["--user", "10001:10001", "--entrypoint", program.strip(), IMAGE, *said["command"][1:], *where]

    def end(self, service: Service, *, seconds: int) -> float:
        began = time.monotonic()
        podman("stop", "--time", str(seconds), service.container)
        return time.monotonic() - began


FIND_SERVER = "from host.embedded import find_server; print(find_server().path)"


def podman(*arguments: str, seconds: float = 600) -> str:
    done = subprocess.run(
        [*PODMAN, *arguments], capture_output=True, text=True, timeout=seconds, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def test_the_image_and_the_services_of_compose(tmp_path: Path) -> None:
    await there(build)
    for name, scenario in (("one", everything_in_one), ("parts", in_parts)):
        folder = tmp_path / name
        folder.mkdir()
        async with talking(folder) as talk:
            with services(folder, talk) as made:
                await scenario(made, talk)


def build() -> None:
    if not podman("images", "--quiet", BASE).strip():
        with_base()
    trust = "/etc/ssl/certs/ca-certificates.crt"
    wheels = ["--volume", "/opt/wheels:/opt/wheels:ro"] if Path("/opt/wheels").is_dir() else []
    began = time.monotonic()
    podman(
        *("build", "--quiet", *BUILD_LIMITS, "--isolation=chroot", "--network=host", "--format", "docker"),
        *("--volume", f"{trust}:{trust}:ro", *wheels, "--build-arg", f"BASE={BASE}"),
        *("-f", str(ROOT / "deploy/docker/Dockerfile"), "-t", IMAGE, str(ROOT)),
        seconds=1200,
    )
    image, base = ({"size": json.loads(podman("inspect", name))[0]["Size"] >> 20} for name in (IMAGE, BASE))
    saw("built", seconds=f"{time.monotonic() - began:.0f}", image_mib=image["size"], of_it_base_mib=base["size"])
    inspected = json.loads(podman("inspect", IMAGE))[0]
    told = inspected["Config"]
    assert told["User"] == "10001:10001"
    assert told["Entrypoint"] == ["hashee-agent"]
    assert inspected["Healthcheck"]["Test"] == ["CMD", "hashee-agent", "healthcheck", "--live"]
    listing = podman("run", "--rm", *RUN_LIMITS, "--network=host", "--entrypoint", "ls", IMAGE, "-A", "/app")
    assert listing.strip() == ""


def with_base() -> None:
    """A Debian with Python under the name that the Dockerfile's BASE has."""
    with_python = "--include=python3,python3-venv,python-is-python3,ca-certificates"
    script = (
        'root=$(mktemp -d); trap \'rm -rf "$root"\' EXIT; debootstrap --variant=minbase "$1" bookworm "$root" >/dev/null; '
        'tar -C "$root" --exclude=./var/cache --exclude=./var/lib/apt/lists --exclude=./usr/share/doc -c . | '
        'podman --cgroup-manager=cgroupfs import --quiet - "$2"'
    )
    subprocess.run(["bash", "-euo", "pipefail", "-c", script, "-", with_python, BASE], check=True, capture_output=True)  # noqa: S607


@contextmanager
def services(folder: Path, talk: Talk) -> Iterator[Services]:
    """The secrets as files that uid 10001 alone can read, and every container gone in the end."""
    store_key = base64.b64encode(os.urandom(32)).decode()
    port, files_port = free_port(), free_port()
    environment = {
        "HASHEE_AGENT_ID": talk.agent_id,
        "HASHEE_BASE_URL": talk.settings["HASHEE_BASE_URL"],
        "HASHEE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "HASHEE_HANDLER": "my_agent:agent",
        "HASHEE_FILES_URL": f"http://127.0.0.1:{files_port}",
    }
    values = {
        "agent_token": talk.settings["HASHEE_AGENT_TOKEN"],
        "x25519_private_base64": talk.settings["HASHEE_X25519_PRIVATE_BASE64"],
        "ed25519_private_base64": talk.settings["HASHEE_ED25519_PRIVATE_BASE64"],
        "store_key": store_key,
        "bus_key": key_of("bus", talk, store_key),
        "files_key": key_of("files", talk, store_key),
    }
    for part in (folder, folder.parent, folder.parent.parent, folder.parent.parent.parent):
        part.chmod(0o711)
    (folder / "secrets").mkdir(mode=0o711)
    for name, value in values.items():
        path = folder / "secrets" / name
        path.write_text(value, encoding="utf-8")
        os.chown(path, 10001, 10001)
        path.chmod(0o400)
    (folder / "app").mkdir(mode=0o755)
    (folder / "app" / "my_agent.py").write_text(HANDLER, encoding="utf-8")
    made = Services(folder, environment, free_port(), files_port)
    try:
        yield made
    except BaseException:
        print("\n".join(service.logs()[-3000:] for service in made.running))
        raise
    finally:
        for service in made.running:
            subprocess.run(
                [*PODMAN, "rm", "--force", "--time", "0", "--volumes", service.container],
                capture_output=True,
                check=False,
            )
        volumes = [f"hashee-test-{os.getpid()}-{volume}" for volume in COMPOSE["volumes"]]
        subprocess.run([*PODMAN, "volume", "rm", "--force", *volumes], capture_output=True, check=False)


def key_of(name: str, talk: Talk, store_key: str) -> str:
    """As the docs say: `hashee-agent keys bus`, and `keys files`, with the supervisor's settings."""
    environment = {
        **os.environ,
        **talk.settings,
        "HASHEE_STORE_KEY": store_key,
        "HASHEE_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    program = str(ROOT / ".venv/bin/hashee-agent")
    done = subprocess.run(
        [program, "keys", name], env=environment, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return done.stdout.strip().removeprefix(f"HASHEE_{name.upper()}_KEY=")


async def everything_in_one(made: Services, talk: Talk) -> None:
    """`docker run hashee-agent`: up, with its private Redis, in 256 MB."""
    container = f"hashee-test-{os.getpid()}-up"
    secrets = [part for name, value in talk.settings.items() for part in ("--env", f"{name}={value}")]
    started = time.monotonic()
    await there(
        partial(
            podman,
            *(
                "run",
                "--detach",
                "--name",
                container,
                "--network=host",
                *RUN_LIMITS,
            ),
            *("--memory", "256m", "--cpus", "1", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"),  # noqa: S108
            *(*secrets, IMAGE),
        )
    )
    service = Service("up", container)
    made.running.append(service)
    answered = await talk.converse("hello")
    saw("up", first_answer_after=f"{time.monotonic() - started:.1f}", memory=await there(memory, service))
    await there(podman, "exec", container, "hashee-agent", "healthcheck")
    await talk.converse(*(f"number {n}" for n in range(100)))
    saw("a hundred messages", memory=await there(memory, service))
    await talk.say("said before the kill")
    await there(podman, "kill", "--signal", "KILL", container)
    began = time.monotonic()
    await there(podman, "start", container)
    await talk.converse("said after the kill")
    saw("killed and started", answered_after=f"{time.monotonic() - began:.1f}")
    took = await there(partial(made.end, service, seconds=60))
    state = json.loads(await there(podman, "inspect", container))[0]["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), service.logs()
    assert answered < PATIENCE_SECONDS
    saw("stopped", seconds=f"{took:.1f}")


async def in_parts(made: Services, talk: Talk) -> None:
    """The services of compose.yaml; a worker and the supervisor are killed, and come back. A file goes through gate and spool."""
    await there(made.start, "redis")
    files = await there(made.start, "files")
    workers = [await there(made.start, "worker", number) for number in (1, 2)]
    supervisor = await there(made.start, "supervisor")
    answered = await talk.converse("to the services")
    saw("in parts", first_answer_after=f"{answered:.1f}", memory=await there(memory, supervisor))
    await a_file_comes_back(talk, files, workers)
    for service in (workers[0], supervisor):
        await talk.say(f"while {service.name} is killed")
        await there(podman, "kill", "--signal", "KILL", service.container)
        await there(podman, "start", service.container)
        took = await talk.converse(f"{service.name} is back")
        saw(f"{service.name} killed", answered_after=f"{took:.1f}")
    took = await there(partial(made.end, supervisor, seconds=60))
    assert json.loads(await there(podman, "inspect", supervisor.container))[0]["State"]["ExitCode"] == 0
    saw("supervisor stopped", seconds=f"{took:.1f}")


async def a_file_comes_back(talk: Talk, files: Service, workers: list[Service]) -> None:
    """Somebody else's, by the file gate; it waits in the volume that the workers share."""
    content = os.urandom(1 << 20) * 20
    ben = await make_person(talk.settings["HASHEE_BASE_URL"], "Ben")
    conversation = await ben.meet(talk.agent_id)
    began = time.monotonic()
    async with connected(ben):
        await ben.send_file(conversation, content, name="twenty.bin")
        with waiting_for("the file to come back", PATIENCE_SECONDS):
            await ben.transcript.until(lambda: len(ben.files) == 1)
        assert await ben.read_file(ben.files[0]) == content
    saw("a file of 20 MB", back_after=f"{time.monotonic() - began:.1f}", gate=await there(memory, files))
    for worker in workers:
        spool = await there(podman, "exec", worker.container, "stat", "-c", "%u %a", SPOOL)
        assert spool.strip() == "10001 700"
        assert "sealed" not in await there(podman, "exec", worker.container, "ls", SPOOL), "it was sent"


def memory(service: Service) -> str:
    return podman("stats", "--no-stream", "--format", "{{.MemUsage}}", service.container).strip()
