"""Imports between rooms go in one direction, also inside functions, and `--help` imports no slow package."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import smtool

PACKAGE = Path(smtool.__file__).parent
ROOMS = (
    ("errors", "config", "devices", "randomness", "storage", "worker_process", "own_code", "image_shape"),
    ("spectrum", "metrics"),
    ("networks",),
    ("features",),
    ("checkpoints",),
    ("tokenizers",),
    ("data",),
    ("training",),
    ("regularizers",),
    ("diffusion",),
    ("tasks",),
    ("recipe", "report"),
    ("cost",),
    ("inference",),
    ("evaluation",),
    ("diffusability",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
SIBLINGS_KEPT_APART = {("spectrum", "metrics"), ("metrics", "spectrum"), ("recipe", "report"), ("report", "recipe")}
FILES_AND_LOGS = {"os", "io", "pathlib", "json", "logging", "shutil", "tempfile"}
PURE = (set(sys.stdlib_module_names) - FILES_AND_LOGS) | {"torch", "smtool"}
HEAVY = ("torch", "numpy", "torchvision", "timm", "lpips", "webdataset", "cleanfid", "matplotlib", "scipy", "skimage")


def _files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py" and "_recipes" not in path.parts]


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            found |= {f"{node.module}.{alias.name}" if node.module == "smtool" else node.module for alias in node.names}
    return found


def test_every_file_is_in_a_known_room():
    assert len(_files()) > 30
    assert {_room(path) for path in _files()} <= set(FLOOR)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_its_own_or_earlier_rooms(path):
    room = _room(path)
    for name in _imports(path):
        if name.startswith("smtool.") and not name.startswith("smtool.__version__"):
            other = name.split(".")[1]
            assert FLOOR[other] <= FLOOR[room], f"{path.name} ({room}) imports {name}"
            assert (room, other) not in SIBLINGS_KEPT_APART, f"{path.name} ({room}) imports {name}"


def test_neither_files_nor_folders_import_each_other_in_a_circle():
    """Imports inside a folder's `__init__`, which re-exports names, are not counted; an import of it counts for the folder."""
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in _files()}
    files: dict[str, set[str]] = {}
    folders: dict[str, set[str]] = {}
    for module, path in modules.items():
        if path.name == "__init__.py":
            continue
        folder = module.rpartition(".")[0]
        for name in _imported_modules(path, modules):
            files.setdefault(module, set()).add(name)
            other = name.removesuffix(".__init__") if name.endswith(".__init__") else name.rpartition(".")[0]
            if "smtool" not in (folder, other) and folder != other:
                folders.setdefault(folder, set()).add(other)
    assert list(_circles(files)) == [] and list(_circles(folders)) == []
    assert list(_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [["a", "b", "c"]]


def _imported_modules(path: Path, modules: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names = (f"{node.module}.{alias.name}", node.module, f"{node.module}.__init__")
                found |= set([name for name in names if name in modules][:1])
    return found


def _circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield every set of nodes that reach each other."""
    reached = {node: _reached(node, graph) for node in graph}
    told: set[str] = set()
    for node in sorted(graph):
        circle = sorted(other for other in reached[node] if node in reached.get(other, ()))
        if circle and node not in told:
            told |= set(circle)
            yield circle


def _reached(node: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph.get(node, ()))
    while ahead:
        if (other := ahead.pop()) not in seen:
            seen.add(other)
            ahead += graph.get(other, ())
    return seen


@pytest.mark.parametrize("room", ["spectrum", "metrics"])
def test_pure_rooms_import_torch_and_no_files_or_logs(room):
    files = list((PACKAGE / room).glob("*.py"))
    assert files
    for path in files:
        outside = {name.split(".")[0] for name in _imports(path)} - PURE
        assert not outside, f"{path.name} imports {outside}"


def test_networks_hold_no_losses_and_training_no_tasks_or_screens():
    for room, banned in {"networks": {"lpips"}, "training": {"rich", "matplotlib"}}.items():
        for path in (PACKAGE / room).glob("*.py"):
            assert not banned & {name.split(".")[0] for name in _imports(path)}, path


@pytest.mark.parametrize("arguments", [["--help"], ["train-ae", "--help"], ["spectrum", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from smtool.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "smtool " in done.stdout or "Usage" in done.stdout


def test_a_list_of_recipes_does_not_wait_for_torch():
    for arguments in (["recipes", "list"], ["recipes", "show", "dsm"]):
        code = (
            "import sys; from smtool.cli import app\n"
            f"try: app({arguments!r})\n"
            "except SystemExit: pass\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (done.stderr.strip(), "dsm" in done.stdout) == ("[]", True)
