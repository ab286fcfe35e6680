"""Imports of a library only what we use of it, where it would load more. Whoever else imports it gets all of it."""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType


def import_without(library: str, hidden: str) -> None:
    """Imports a library as if another one were not installed. Whoever needs that one imports it later. Nothing happens where either is there already.

    structlog takes rich for tracebacks in colours, 3.5 MiB of each process.
    """
    if library in sys.modules:
        return
    with _Hidden(hidden):
        import_module(library)


def import_parts(library: str, parts: Iterable[str], hidden: str) -> None:
    """Imports modules of a package, but not the package itself, which would load the others. Nothing happens where it is there already.

    redis loads its asyncio and cluster clients and all commands, 4 MiB of each process, and takes opentelemetry (`hidden`, as above) for
    figures of its own, 1.7 MiB. A later `import redis` runs what the package begins with, in the same module object: its modules are
    there once. A version whose parts cannot be imported without the rest is left to be imported whole.
    """
    if library in sys.modules or (spec := find_spec(library)) is None:
        return
    package = module_from_spec(spec)
    sys.modules[library] = package
    try:
        with _Hidden(hidden):
            for part in parts:
                import_module(f"{library}.{part}")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
            del sys.modules[name]
    else:
        sys.meta_path.insert(0, _Rest(package, spec))
    finally:
        del sys.modules[library]


class _Hidden:
    """A block in which the import of a library fails as if it were not installed, unless it is there already."""

    def __init__(self, library: str) -> None:
        self._library = library

    def __enter__(self) -> None:
        self._is_there = self._library in sys.modules
        if not self._is_there:
            sys.modules[self._library] = None  # type: ignore[assignment]  # an import of it fails then, which the other one expects

    def __exit__(self, *_: object) -> None:
        if not self._is_there:
            del sys.modules[self._library]


class _Rest(MetaPathFinder, Loader):
    """Finds a package of which parts are imported, and runs what it begins with when somebody imports it, under the import's own locks.

    It stays among the finders: to remove one while another thread looks through them would make that one skip the next.
    """

    def __init__(self, package: ModuleType, spec: ModuleSpec) -> None:
        self._package = package
        self._spec = spec
        self._has_run = False

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._spec.name or self._has_run:
            return None
        places = self._spec.submodule_search_locations
        return spec_from_file_location(fullname, self._spec.origin, loader=self, submodule_search_locations=places)

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        return self._package

    def exec_module(self, module: ModuleType) -> None:
        if self._spec.loader is None:
            raise ImportError(f"{self._spec.name} has no loader", name=self._spec.name)
        self._spec.loader.exec_module(module)
        module.__spec__ = self._spec
        self._has_run = True
