"""Do something right after another package's module is imported, without importing it.

    when_imported("transformers.quantizers.auto", register)

`import bitnet_train` has to stay light, and yet transformers has to know of it as soon as both are imported, in
whichever order. A finder at the head of `sys.meta_path` waits for the one name, lets the others find the module, and
steps aside. PEP 451 describes finders, specs and loaders. Standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Call `action` once the module `name` is imported: now if it is, and otherwise at the end of its import.

    What the action raises, the import raises. Nothing happens where `name` is never imported, or does not exist.
    """
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action))


class _Finder(MetaPathFinder):
    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self._name, self._action = name, action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._action)
        return spec


class _Loader(Loader):
    """The real loader, and the action after it."""

    def __init__(self, loader: Loader, action: Callable[[], object]) -> None:
        self._loader, self._action = loader, action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._action()

    def __getattr__(self, name: str) -> Any:  # what `inspect` and `linecache` ask a loader for
        return getattr(self._loader, name)
