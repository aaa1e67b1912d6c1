"""Run a user's Python file, with the imports that hold where it lies.

A file may import its neighbours, as a script does (`import layers`) or as a module of a package
does (`from .layers import Conv`). Each folder's files are a package of their own, whose name no
other folder has, so files in two folders may each have a neighbour `layers`.
"""

import ast
import builtins
import contextlib
import hashlib
import importlib
import importlib.util
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from bam_search.errors import UserError, nearest

PREFIX = "bam_search_"
"""How the names of the packages begin."""
INSTALLED = ("site-packages", "dist-packages")
"""The folders of packages that are installed."""
INIT = "__init__"
_RUNNING = threading.RLock()
"""Held while a file runs: another thread must not see half of it."""


def run_file(path: Path, kind: str = "file") -> Any:
    """The module of a Python file, which is executed as if it were run from its folder.

    A file that has relative imports, or imports the package that it lies in, is executed as a
    module of that package, after the package's `__init__.py`. A file is executed once a process,
    and again when it or what it imports from its folder has changed. Its package is named by
    `kind`, so that one file can be run as two.

    Raises UserError if the file does not exist or cannot be imported.
    """
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    try:
        with _RUNNING:
            return _run(path.resolve(), kind)
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def function_of(path: Path, name: str) -> Any:
    """A function or class of a Python file, which is executed.

    Raises UserError as `run_file` does, and with the nearest one if there is none of this name.
    """
    module = run_file(path)
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"{path} has no function {name!r}", nearest(name, defined_in(module)))
    return found


def defined_in(module: ModuleType) -> list[str]:
    """The names of the functions and classes that a file defines, not of those that it imports."""
    return [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    ]


def digest_of_code(path: Path) -> str:
    """Twelve hexadecimal digits of a Python file's content, and of that of what it imports.

    Nothing is executed: what it imports is what its statements name, of its own folder and its
    package. What is installed belongs to no user's code. Raises UserError if it cannot be read.
    """
    try:
        sources = _sources(path.resolve())
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    digests = [hashlib.sha256(source).hexdigest() for source in sources.values()]
    if len(digests) == 1:
        return digests[0][:12]
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()[:12]


Code = tuple[tuple[str, str], ...]
"""Paths of a user's files, each with the digest of its code."""


def code_of(paths: Iterable[str]) -> Code:
    """The code of those of the paths that are Python files. Raises UserError as above."""
    return tuple((path, digest_of_code(Path(path))) for path in paths if path.endswith(".py"))


def check_code(code: Code) -> None:
    """Raise UserError if a file has other code by now."""
    for path, digest in code:
        if digest_of_code(Path(path)) != digest:
            raise UserError(
                f"{path} is not the file that the study began with",
                "put that one back, or begin anew with --force-new",
            )


def _sources(path: Path) -> dict[Path, bytes]:
    """The contents of a file, and of the user's files that it imports, by path."""
    packages = _packages_above(path)
    folders = path.parents[: packages + 1]  # in which absolute imports look
    sources: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in sources:
            sources[file] = file.read_bytes()
            waiting += filter(_is_users, _imported(file, sources[file], folders))
    return sources


def _is_users(path: Path) -> bool:
    """Whether there is such a file, and it is none of a package that is installed."""
    return path.is_file() and not any(folder in path.parts for folder in INSTALLED)


def _imported(file: Path, source: bytes, folders: Sequence[Path]) -> Iterator[Path]:
    """Where the modules and packages may lie that a file's import statements name."""
    for level, name in _imports(source):
        levels = file.parents[level - 1 : level] if level else (file.parent, *folders)
        parts = name.split(".") if name else []
        for folder, n in itertools.product(levels, range(len(parts) + 1)):
            inside = folder.joinpath(*parts[:n])
            if n:
                yield inside.with_name(f"{inside.name}.py")
            if n or level:
                yield inside / f"{INIT}.py"


def _imports(source: bytes) -> Iterator[tuple[int, str]]:
    """What a file imports, and from how many folders above; nothing if it is no Python."""
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                module = f"{node.module}." if node.module else ""
                yield from ((node.level, f"{module}{item.name}") for item in node.names)
            elif isinstance(node, ast.Import):
                yield from ((0, item.name) for item in node.names)


def _run(path: Path, kind: str) -> ModuleType:
    loader = _Loader(str(path), path.read_bytes())
    root = _root(path, loader.source)
    package = f"{PREFIX}{kind}_{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"
    _drop_changed(package)
    _make_package(package, root)
    parent = ".".join((package, *path.parent.relative_to(root).parts))
    importlib.invalidate_caches()  # of folders in which files are new
    importlib.import_module(parent)
    name = parent if path.stem == INIT else f"{parent}.{path.stem.replace('.', '_')}"
    if name in sys.modules:  # it has run before, or its package has imported it
        return sys.modules[name]
    return _executed(name, loader)


def _executed(name: str, loader: "_Loader") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, loader.path)
    assert spec is not None
    spec.loader = loader  # type: ignore[assignment]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its classes can then be pickled
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _root(path: Path, source: bytes) -> Path:
    """The folder below which the file's package begins.

    It is the file's own folder, unless the file imports as a module of a package does: relatively,
    or by the name of the package that its folder belongs to.
    """
    packages = _packages_above(path)
    name = path.parents[packages - 1].name if packages else None
    imports = list(_imports(source))
    level = max((level for level, _ in imports), default=0)
    tops = {imported.partition(".")[0] for level, imported in imports if not level}
    is_module = level > 0 or path.stem == INIT or name in tops
    above = max(packages if is_module else 0, level - 1)
    return path.parents[min(above, len(path.parents) - 1)]


def _packages_above(path: Path) -> int:
    """How many of the folders above a file are packages, each within the next."""
    packages = 0
    while (path.parents[packages] / f"{INIT}.py").is_file():
        packages += 1
    return packages


def _make_package(name: str, folder: Path) -> None:
    """Make the package of the files of `folder`, unless it is there."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(spec)


def _drop_changed(package: str) -> None:
    """Forget all modules of a package if the file of one has changed since it was executed."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    specs = [getattr(sys.modules[name], "__spec__", None) for name in names]
    loaders = [spec.loader for spec in specs if spec is not None]
    if any(loader.has_changed() for loader in loaders if isinstance(loader, _Loader)):
        for name in names:
            del sys.modules[name]


@dataclass(frozen=True)
class _Loader:
    """Executes a file, in which absolute imports find the file's neighbours too.

    It follows the protocol of `importlib.abc.Loader`. The source is read, not a cached bytecode: a
    file that was written twice within a second is not the old one.
    """

    path: str
    source: bytes

    def has_changed(self) -> bool:
        """Whether the file has another content by now."""
        try:
            return Path(self.path).read_bytes() != self.source
        except OSError:
            return True

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave it to importlib."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the file in `module`."""
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        exec(compile(self.source, self.path, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, _name: str) -> str:
        """The file's text, for tracebacks and `inspect`."""
        return importlib.util.decode_source(self.source)


@dataclass(frozen=True)
class _Finder:
    """Finds the modules of the packages, for `sys.meta_path`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of one of the packages; None for any other module."""
        if not name.startswith(PREFIX) or path is None:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.origin, Path(spec.origin).read_bytes())  # type: ignore[assignment]
        return spec


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` in a user's files: it finds their neighbours too."""
    top = name.partition(".")[0]
    importer = globals or {}
    package = "" if level else _package_with(top, str(importer.get("__package__")))
    if not package:
        return builtins.__import__(name, globals, locals, fromlist, level)
    module = builtins.__import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
    return module if fromlist else sys.modules[f"{package}.{top}"]


def _package_with(top: str, package: str) -> str:
    """The package that `import top` means in a module of `package`; empty for an import as usual.

    What is installed goes before a neighbour in a package's folder, where an absolute import does
    not mean the neighbour, and after one in any other folder, as in a script.
    """
    usual = _usual(top)
    if top in sys.stdlib_module_names:
        return ""
    is_installed = usual is not None and any(part in str(usual.origin) for part in INSTALLED)
    for name in (package.partition(".")[0], package):
        found = _neighbour(name, top)
        if found is None or (is_installed and _neighbour(name, INIT)):
            continue
        if usual is None:
            return name
        if found.origin is not None:  # a folder without __init__.py goes after all else
            # The same file is the same module: the user's own code may hold it already.
            return "" if found.origin == usual.origin else name
    return ""


def _neighbour(package: str, name: str) -> ModuleSpec | None:
    path = getattr(sys.modules.get(package), "__path__", None)
    return None if path is None else PathFinder.find_spec(f"{package}.{name}", path)


def _usual(top: str) -> ModuleSpec | None:
    """What `import top` finds elsewhere."""
    try:
        return importlib.util.find_spec(top)
    except ValueError:  # a module without a spec, such as __main__
        return ModuleSpec(top, None)
