"""`hashee-agent init DIR`: an agent of one's own, with its test, in a folder; the files lie in sandbox/starter/. Nothing is overwritten."""

import re
from pathlib import Path
from typing import Final

STARTER: Final = Path(__file__).parent / "starter"
COMMON: Final = "common"
SUFFIX: Final = ".txt"
"""So that no tool takes a file of the starter for one of ours."""

HIDDEN: Final = {"env.example": ".env.example", "gitignore": ".gitignore"}
TEMPLATES: Final = tuple(sorted(one.name for one in STARTER.iterdir() if one.is_dir() and one.name != COMMON))
NEXT: Final = (
    ("hashee-agent console", "talk to it in this terminal: no server, no account, no key"),
    ("pytest", "its test (pip install pytest)"),
    ("hashee-agent dev", "the same through everything, end to end encrypted; reloaded on each save"),
    ("hashee-agent up --env-file .env", "for real: copy .env.example to .env and fill it in first"),
)

HINTS: Final = {
    "tools": "it needs a language model: set OPENAI_API_KEY, or OPENAI_BASE_URL and HASHEE_LLM_MODEL; its test needs none",
}


class AlreadyThere(Exception):
    """The folder has files that would be overwritten."""


def files_of(template: str, name: str) -> dict[str, str]:
    """Returns the text of each file of a project, by its name."""
    found = {}
    for folder in (COMMON, template):
        for path in sorted((STARTER / folder).iterdir()):
            plain = path.name.removesuffix(SUFFIX)
            found[HIDDEN.get(plain, plain)] = path.read_text(encoding="utf-8").replace("@NAME@", name)
    return found


def start_project(directory: Path, template: str) -> list[str]:
    """Writes a project; returns the names of its files. Raises AlreadyThere before anything is written, OSError."""
    files = files_of(template, project_name(directory))
    there = [name for name in files if (directory / name).exists() or (directory / name).is_symlink()]
    if there:
        raise AlreadyThere(f"{directory} has {', '.join(there)} already, and nothing was written: name another folder")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with (directory / name).open("x", encoding="utf-8") as file:
            file.write(text)
    return list(files)


def project_name(directory: Path) -> str:
    """Returns a name that Python's packaging takes."""
    return re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-") or "agent"


def what_next(directory: Path, files: list[str], template: str) -> str:
    """Returns what is said when it is done."""
    width = max(len(command) for command, _ in NEXT)
    steps = [] if directory.resolve() == Path.cwd().resolve() else [f"  cd {directory}"]
    steps += [f"  {command:{width}}   {what}" for command, what in NEXT]
    hint = [HINTS[template]] if template in HINTS else []
    return "\n".join([f"wrote {', '.join(sorted(files))}", "next:", *steps, *hint])
