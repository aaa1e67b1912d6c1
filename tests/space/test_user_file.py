"""A user's Python file is executed with the imports that hold where it lies."""

import hashlib
import importlib
import inspect
import pickle
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from bam_search.errors import UserError
from bam_search.space.user_file import digest_of_code, run_file


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("file", "files"),
    [
        ("net.py", {"net.py": "from .layers import X", "layers.py": "X = 1"}),
        ("net.py", {"net.py": "from . import layers\nX = layers.X", "layers.py": "X = 1"}),
        ("net.py", {"net.py": "import layers\nX = layers.X", "layers.py": "X = 1"}),
        ("net.py", {"net.py": "from layers import *", "layers.py": "X = 1"}),
        ("net.py", {"net.py": "import a.b as c\nX = c.X", "a/b.py": "X = 1"}),
        ("net.py", {"net.py": "import a.b\nX = a.b.X", "a/b.py": "X = 1", "a/__init__.py": ""}),
        ("net.py", {"net.py": "from a import b\nX = b.X", "a/b.py": "X = 1", "a/__init__.py": ""}),
        ("net.py", {"net.py": "import a\nX = a.X", "a.py": "from .b import X", "b.py": "X = 1"}),
        ("net.py", {"net.py": "import a\nX = a.X", "a.py": "import b\nX = b.X", "b.py": "X = 1"}),
        ("p/net.py", {"p/net.py": "from ..a import X", "a.py": "X = 1"}),
        (
            "p/q/net.py",
            {"p/q/net.py": "from ...a import X", "a.py": "X = 1", "p/q/__init__.py": ""},
        ),
        (
            "p/net.py",
            {
                "p/__init__.py": "Y = 1",
                "p/net.py": "from . import Y\nfrom .a import X",
                "p/a.py": "X = 1",
            },
        ),
        (
            "p/net.py",
            {
                "p/__init__.py": "",
                "p/net.py": "from p.a import X",
                "p/a.py": "from .b import X",
                "p/b.py": "X = 1",
            },
        ),
        (
            "p/net.py",  # the package imports the file before the file is run
            {
                "p/__init__.py": "from .net import X",
                "p/net.py": "from .a import X",
                "p/a.py": "X = 1",
            },
        ),
        (
            "p/net.py",  # no import needs its package, which is broken
            {"p/__init__.py": "1 / 0", "p/net.py": "import a\nX = a.X", "p/a.py": "X = 1"},
        ),
        ("p/__init__.py", {"p/__init__.py": "from .a import X", "p/a.py": "X = 1"}),
        ("net.v2.py", {"net.v2.py": "from .a import X", "a.py": "X = 1"}),
        (
            "my-net.py",
            {"my-net.py": "import json, a\nX = a.X", "a.py": "X = 1", "json.py": "1 / 0"},
        ),
        # What is installed is not a neighbour in a package, as it says how it means those.
        (
            "p/net.py",
            {
                "p/__init__.py": "",
                "p/net.py": "from .a import X\nimport torch.nn",
                "p/a.py": "X = 1",
                "p/torch.py": "",
            },
        ),
    ],
)
def test_imports_hold(tmp_path: Path, file: str, files: Mapping[str, str]) -> None:
    write(tmp_path, files)
    assert run_file(tmp_path / file).X == 1
    assert run_file(tmp_path / file).X == 1  # again


@pytest.mark.parametrize(
    "text",
    [
        "import layers\ndef x(): return layers.X",
        "def x():\n    import layers\n    return layers.X",
        "def x():\n    from layers import X\n    return X",
        "def x():\n    from .layers import X\n    return X",
        "import deep\ndef x(): return deep.layers.X",
    ],
)
def test_each_folder_has_its_own_neighbours(tmp_path: Path, text: str) -> None:
    """Also those imported later, and those of neighbours."""
    modules = []
    for value in range(3):
        folder = tmp_path / str(value)
        names = {"net.py": text, "deep.py": "import layers", "layers.py": f"X = {value}"}
        write(folder, names)
        modules.append(run_file(folder / "net.py"))
    assert [module.x() for module in modules] == [0, 1, 2]
    assert "layers" not in sys.modules


def test_a_neighbour_goes_before_that_of_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder, say, may have modules of the same names."""
    for place in ("here", "there"):
        write(tmp_path / place, {"layers.py": f"X = {place!r}", "m/__init__.py": f"X = {place!r}"})
    write(tmp_path / "here", {"net.py": "import layers, m", "__init__.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "there")
    module = run_file(tmp_path / "here" / "net.py")
    assert (module.layers.X, module.m.X) == ("here", "here")
    monkeypatch.delitem(sys.modules, "layers", raising=False)


def test_what_the_users_code_imports_too_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"net.py": "import of_this_test", "of_this_test.py": "class X: pass"})
    monkeypatch.syspath_prepend(tmp_path)
    module = run_file(tmp_path / "net.py")
    assert module.of_this_test is importlib.import_module("of_this_test")
    del sys.modules["of_this_test"]


def test_a_file_is_executed_again_when_it_or_a_neighbour_has_changed(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": "import layers\nX = layers.X", "layers.py": "X = 1"})
    first = run_file(tmp_path / "net.py")
    assert run_file(tmp_path / "net.py") is first
    (tmp_path / "layers.py").write_text("X = 2")  # as many bytes, in the same second
    assert run_file(tmp_path / "net.py").X == 2
    (tmp_path / "net.py").write_text("from .layers import X")
    assert run_file(tmp_path / "net.py").X == 2
    (tmp_path / "layers.py").unlink()
    with pytest.raises(UserError, match="ModuleNotFoundError"):
        run_file(tmp_path / "net.py")


@pytest.mark.parametrize(
    "text",
    [
        "import layers",
        "from layers import X",
        "from . import layers",
        "from .layers import X",
        "import through",
        "from through import layers",
        "from p import Y",
        "import p.deep",
    ],
)
def test_the_digest_is_of_all_that_a_file_imports(tmp_path: Path, text: str) -> None:
    files = {"through.py": "import layers", "layers.py": "X = 1", "other.py": "X = 1"}
    write(tmp_path, {"net.py": text, "alone.py": "import json", **files})
    write(tmp_path, {"p/__init__.py": "Y = 1", "p/deep.py": "import layers"})
    alone, whole = (digest_of_code(tmp_path / name) for name in ("alone.py", "net.py"))
    assert alone == hashlib.sha256(b"import json").hexdigest()[:12]
    (tmp_path / "other.py").write_text("X = 2")
    assert digest_of_code(tmp_path / "net.py") == whole
    changed = "p/__init__.py" if text == "from p import Y" else "layers.py"
    (tmp_path / changed).write_text("X = Y = 2")
    assert digest_of_code(tmp_path / "net.py") != whole
    assert digest_of_code(tmp_path / "alone.py") == alone


def test_the_digest_runs_nothing_and_follows_no_installed_package(tmp_path: Path) -> None:
    files = {"broken.py": "def f(:", "net.py": "from site_packages import X\nraise SystemExit"}
    write(tmp_path, files)
    write(tmp_path / "site-packages", {"p/__init__.py": "from .q import X", "p/q.py": "X = 1"})
    for path in (tmp_path / "broken.py", tmp_path / "net.py", tmp_path / "site-packages/p/q.py"):
        assert digest_of_code(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    installed = tmp_path / "site-packages" / "p" / "__init__.py"
    before = digest_of_code(installed)
    installed.with_name("q.py").write_text("X = 2")
    assert digest_of_code(installed) == before
    with pytest.raises(UserError, match="there is no file"):
        digest_of_code(tmp_path / "nowhere.py")


def test_the_digest_of_a_module_of_a_package_is_of_the_package_too(tmp_path: Path) -> None:
    write(tmp_path, {"p/__init__.py": "", "p/net.py": "from p.layers import X", "q.py": "Y = 1"})
    write(tmp_path, {"p/layers.py": "from ..q import Y as X"})
    before = digest_of_code(tmp_path / "p" / "net.py")
    (tmp_path / "q.py").write_text("Y = 2")
    assert digest_of_code(tmp_path / "p" / "net.py") != before


def test_one_file_can_be_run_as_two(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": "X = 1"})
    as_file, as_task = run_file(tmp_path / "net.py"), run_file(tmp_path / "net.py", "task")
    assert as_file is not as_task
    assert as_file is run_file(tmp_path / "net.py")


def test_classes_can_be_pickled_and_inspected(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": "import a\nclass Y: pass", "a.py": "class X: pass"})
    module = run_file(tmp_path / "net.py")
    for cls in (module.Y, module.a.X):
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert inspect.getsource(cls) == f"class {cls.__name__}: pass\n"


def test_threads_see_whole_modules(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": "import time\ntime.sleep(0.1)\nX = 1"})
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(run_file(tmp_path / "net.py").X))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1]


def test_its_functions_compile(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"net.py": "import a\ndef f(x): return a.g(x) + len(x)", "a.py": "def g(x): return 2 * x"},
    )
    f: Callable[[torch.Tensor], torch.Tensor] = run_file(tmp_path / "net.py").f
    fast = torch.compile(f, backend="eager", fullgraph=True)
    assert torch.equal(fast(torch.ones(2)), torch.full((2,), 4.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from .missing import X", r"ModuleNotFoundError: No module named .*missing"),
        ("import missing_here", "ModuleNotFoundError: No module named 'missing_here'"),
        ("import broken", "SyntaxError"),
        ("def f(:", "SyntaxError"),
        ("from ............................................ import a", "ImportError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_fails_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, {"net.py": text, "broken.py": "def f(:"})
    for _ in range(2):
        with pytest.raises(UserError, match=f"cannot be imported: {message}"):
            run_file(tmp_path / "net.py")
