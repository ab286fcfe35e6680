"""Imports of a library only what we use of it, where it would load more. Whoever else imports it gets all of it."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType


def import_without(library: str, hidden: str) -> None:
    """Imports a library as if another one were not installed. Whoever needs that one imports it later. What is there already stays as it is.

    structlog takes rich for tracebacks in colours, 3.5 MiB of each process.
    """
    if library in sys.modules:
        return
    with _hidden(hidden):
        import_module(library)


def import_parts(library: str, parts: Iterable[str], hidden: str) -> None:
    """Imports modules of a package, but not the package itself, which would load the others. Nothing happens where it is there already.

    redis loads its asyncio and cluster clients and all commands, 4 MiB of each process, and takes opentelemetry (`hidden`, as above) for
    figures of its own, 1.7 MiB, which stay off. A later `import redis` runs what the package begins with, and finds these modules in it.
    A version whose parts cannot be imported without the rest is left to be imported whole. Called at the start, before there are threads.
    """
    spec = None if library in sys.modules else find_spec(library)
    if spec is None or spec.loader is None or spec.origin is None:
        return
    sys.modules[library] = module_from_spec(spec)
    try:
        with _hidden(hidden):
            for part in parts:
                import_module(f"{library}.{part}")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
            del sys.modules[name]
    else:
        sys.meta_path.insert(_place_of_files(), _Rest(spec, spec.loader))
    finally:
        del sys.modules[library]


def _place_of_files() -> int:
    """Returns where the finder of files stands: those before it (what others hook into imports) are asked first, as for any package."""
    return next((place for place, finder in enumerate(sys.meta_path) if finder is PathFinder), 0)


@contextmanager
def _hidden(library: str) -> Iterator[None]:
    """A block in which the import of a library fails as if it were not installed, unless it is there already."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = None  # type: ignore[assignment]  # an import of it fails then, which the other one expects
    try:
        yield
    finally:
        del sys.modules[library]


class _Rest(MetaPathFinder, Loader):
    """Finds a package of which parts are imported, and runs what it begins with when somebody imports it, under the import's own locks.

    The parts are in the package then, as if it had been there before them, however often it is taken out of `sys.modules`. What else is
    asked of it as a loader it takes from the package's own. It stays among the finders: to remove one while another thread looks through
    them would make that one skip the next.
    """

    def __init__(self, spec: ModuleSpec, loader: Loader) -> None:
        self._spec = spec
        self._loader = loader

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._spec.name or not self._parts():
            return None
        places = self._spec.submodule_search_locations
        return spec_from_file_location(fullname, self._spec.origin, loader=self, submodule_search_locations=places)

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        return module_from_spec(self._spec)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._parts())
        self._loader.exec_module(module)
        module.__spec__ = self._spec

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def _parts(self) -> dict[str, ModuleType]:
        start = f"{self._spec.name}."
        names = [name for name in list(sys.modules) if name.startswith(start) and "." not in name.removeprefix(start)]
        return {name.removeprefix(start): sys.modules[name] for name in names}
