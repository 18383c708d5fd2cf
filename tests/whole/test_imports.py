"""The house stands: who may import whom, what is loaded when, how much a folder and a file may hold.

Every rule is a function that returns a sentence for each place that breaks it; the last test here breaks every rule.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from house import FACE, House, folder_of

ROOT = Path(__file__).parents[2]

# Whom the files of a folder may import, beside each other: these folders, and all that those may.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "data": (),
    "data/corpora": ("data",),
    "data/pools": ("data",),
    "pipeline/method": (),
    "pipeline/storage": ("data",),
    "pipeline/backbone": ("pipeline/method", "pipeline/storage"),
    "pipeline/layers": ("pipeline/backbone",),
    "pipeline/stages": ("pipeline/layers",),
    "pipeline/model": ("pipeline/stages",),
    "pipeline/run": ("pipeline/model", "data/pools"),
    "pipeline/training": ("pipeline/run",),
    "pipeline/onnx": ("pipeline/model",),
    "pipeline/results": ("pipeline/training", "pipeline/onnx"),
    "pipeline/pretraining": ("pipeline/training",),
    "pipeline": ("pipeline/results",),
    "flows": (),
    "flows/server": ("data/corpora", "pipeline/storage"),
    "flows/pages": ("flows/server", "pipeline/results"),
    "flows/run": ("flows/pages", "pipeline", "pipeline/pretraining"),
    "flows/labelling": ("flows/run",),
    "flows/cli": ("flows/labelling",),
}
# Packages that nobody in a folder, or in the folders within it, may import.
WITHOUT = {
    "data": {"torch", "prefect", "transformers"},
    "pipeline": {"prefect"},
    "flows": {"torch", "transformers"},
}
# What is imported before anybody has asked for a model or a server, and what must not be loaded by it.
LIGHT = (
    "listflow",
    "listflow.pipeline.run.wording",
    "listflow.pipeline.storage.review",
    "listflow.pipeline.stages.config",
    "listflow.pipeline.model.config",
    "listflow.pipeline.run.config",
    "listflow.pipeline.run.status",
    "listflow.flows.cli.main",
)
HEAVY = ("torch", "prefect", "transformers", "sklearn")
MOST_FILES = {"data": 13}  # and 12 in any other folder
MOST_LINES, MOST_LINES_OF_TESTS = 300, 500


def wrong_imports(house: House, folder: str) -> list[str]:
    """What files of ``folder`` import against the table, and packages that they may not know."""
    if folder not in MAY_IMPORT:
        return [f"{folder} has no place in the table"]
    may = _allowed(folder) | {folder}
    banned = set().union(*(packages for floor, packages in WITHOUT.items() if f"{folder}/".startswith(f"{floor}/")))
    found = []
    for path in (path for path in house.files() if folder_of(path) == folder):
        for one in house.imports(path):
            home = house.home(one)
            if home is not None and folder_of(home) not in may:
                found.append(f"{one.words}: {folder} may not import {folder_of(home)}")
            if one.package in banned:
                found.append(f"{one.words}: no {one.package} in {folder}")
    return found


def circles(house: House) -> list[str]:
    graph = {path: set(house.ties(path)) for path in house.files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def ways_around(house: House) -> list[str]:
    """Imports that are not whole: by the public names, by a name without ``listflow``, or relative ones."""
    found = []
    for path in house.files():
        for node in house.nodes(path):
            if isinstance(node, ast.ImportFrom) and node.level:
                found.append(f"{path}, line {node.lineno}: a relative import")
        for one in house.imports(path):
            if one.package in {"data", "pipeline", "flows", "tests"}:
                found.append(f"{one.words}: not by its whole name")
            if one.module == "listflow":
                found.append(f"{one.words}: the public names are for users; import it from where it lives")
    return found


def private_names(house: House) -> list[str]:
    """Names with a leading underscore that a file takes from another one."""
    found = []
    for path in house.files():
        ours = [one for one in house.imports(path) if house.home(one)]
        found += [one.words for one in ours if one.name.startswith("_")]
        modules = {one.name or one.module.rpartition(".")[2] for one in ours if _is_module(house, one.module, one.name)}
        for node in house.nodes(path):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                owner = ast.unparse(node.value).rpartition(".")[2]
                if owner in modules:
                    found.append(f"{path}, line {node.lineno}: {owner}.{node.attr}")
    return found


def too_large(house: House) -> list[str]:
    found = [
        f"{folder} holds {len(files)} files"
        for folder, files in house.folders().items()
        if len(files) > MOST_FILES.get(folder, 12)
    ]
    found += [f"{path} has {n} lines" for path in house.files() if (n := house.lines(path)) > MOST_LINES]
    tests = (path.relative_to(house.root).as_posix() for path in sorted((house.root / "tests").rglob("*.py")))
    return found + [f"{path} has {n} lines" for path in tests if (n := house.lines(path)) > MOST_LINES_OF_TESTS]


def wrong_faces(house: House) -> list[str]:
    """Faces that are missing, leave out or make up a file, or hold more than their docstring."""
    found = []
    for folder, files in house.folders().items():
        face = f"{folder}/{FACE}"
        if not (house.root / face).exists():
            found.append(f"{folder} has no face")
            continue
        within = [f"{other.rpartition('/')[2]}/" for other in house.folders() if folder_of(other) == folder]
        there, named = {*files, *within}, house.named(face)
        found += [f"{face} does not name {name}" for name in sorted(there - set(named))]
        found += [f"{face} names {name}, which is not there" for name in sorted(set(named) - there)]
        found += [f"{face} names {name} twice" for name in sorted(set(named)) if named.count(name) > 1]
        if len(house.tree(face).body) > 1:
            found.append(f"{face} holds more than its docstring")
    return found


RULES: dict[str, Callable[[House], list[str]]] = {
    "no circle of files": circles,
    "imports are whole": ways_around,
    "no private name of another file": private_names,
    "folders and files of a size that can be read": too_large,
    "faces": wrong_faces,
}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_one_way(folder: str) -> None:
    assert not wrong_imports(House(ROOT), folder)


def test_every_folder_has_its_place() -> None:
    assert sorted(House(ROOT).folders()) == sorted(MAY_IMPORT)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule: str) -> None:
    assert not RULES[rule](House(ROOT))


def test_what_is_asked_for_first_loads_nothing_heavy() -> None:
    """In one process, one after the other: the first that loads something is named."""
    script = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        f"    if loaded := [heavy for heavy in {HEAVY!r} if heavy in sys.modules]:\n"
        "        sys.exit(f'{name} loads ' + ', '.join(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_rounds_work_without_prefect() -> None:
    names = ("training.rounds", "results.outcome", "results.predictors", "results.export", "results.label_worker")
    modules = ", ".join(f"listflow.pipeline.{name}" for name in names)
    script = f"import sys; sys.modules['prefect'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_a_test_file_stands_where_its_file_of_code_stands() -> None:
    """``tests/whole`` aside, and the demo's, which is of a folder of files."""
    tests = [path.relative_to(ROOT / "tests") for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    code = {path.parent / path.name.removeprefix("test_") for path in tests if path.parts[0] != "whole"}
    assert not sorted(str(path) for path in code if not (ROOT / path).exists() and path != Path("data/demo.py"))


def everything(house: House) -> list[str]:
    found = [sentence for folder in sorted(house.folders()) for sentence in wrong_imports(house, folder)]
    return found + [sentence for rule in RULES.values() for sentence in rule(house)]


# What is added to a file of the house, and what must be said of it.
BROKEN: dict[str, tuple[str, str, str]] = {
    "a lower folder": (
        "pipeline/backbone/cache.py",
        "from listflow.pipeline.training.rounds import judge",
        "pipeline/backbone may not import pipeline/training",
    ),
    "within a function": (
        "data/rows.py",
        "def later():\n    from listflow.pipeline.run import config",
        "data may not import pipeline/run",
    ),
    "for types alone": (
        "pipeline/results/report.py",
        "if TYPE_CHECKING:\n    import listflow.pipeline.pretraining.adapt",
        "pipeline/results may not import pipeline/pretraining",
    ),
    "by import_module": (
        "pipeline/storage/checkpoint.py",
        "import_module('listflow.pipeline.backbone.batch')",
        "pipeline/storage may not import pipeline/backbone",
    ),
    "a relative one": (
        "flows/server/events.py",
        "from ..run import tasks",
        "flows/server may not import flows/run",
    ),
    "a public name": (
        "pipeline/run/sources.py",
        "from listflow import Predictor",
        "pipeline/run may not import pipeline/results",
    ),
    "a public name that it may know": (
        "flows/cli/main.py",
        "from listflow import Predictor",
        "the public names are for users",
    ),
    "without listflow": ("flows/cli/main.py", "from pipeline.run import config", "not by its whole name"),
    "a folder without a place": ("pipeline/more/new.py", "x = 1", "pipeline/more has no place in the table"),
    "a formula that knows data": (
        "pipeline/method/gate.py",
        "from listflow.data.errors import InputError",
        "pipeline/method may not import data",
    ),
    "a circle": (
        "data/errors.py",
        "from listflow.data.schema import Section",
        "data/errors.py imports data/schema.py imports data/errors.py",
    ),
    "Prefect in the method": ("pipeline/run/status.py", "import prefect.states", "no prefect in pipeline/run"),
    "torch in the flows": ("flows/cli/run.py", "from torch import nn", "no torch in flows/cli"),
    "transformers in the data": ("data/formats.py", "import transformers", "no transformers in data"),
    "a private name": ("flows/cli/run.py", "from listflow.data.files import _secret", "listflow.data.files._secret"),
    "a private attribute": (
        "flows/cli/run.py",
        "from listflow.data import files\nfiles._secret()",
        "flows/cli/run.py, line {line}: files._secret",
    ),
    "a long file": ("data/splits.py", "x = 1\n" * 300, "data/splits.py has "),
    "a long test file": ("tests/data/test_new.py", "x = 1\n" * 500, "tests/data/test_new.py has 501 lines"),
    "a file that its face does not name": ("data/new.py", "x = 1", "data/__init__.py does not name new.py"),
    "a folder that its face does not name": ("flows/new/__init__.py", "", "flows/__init__.py does not name new/"),
    "a folder without a face": ("flows/new/file.py", "x = 1", "flows/new has no face"),
    "a face that imports": ("pipeline/run/__init__.py", "import os", "pipeline/run/__init__.py holds more than its"),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for name in ("data", "pipeline", "flows", "tests"):
        others = shutil.ignore_patterns("__pycache__", "*.jsonl", "*.safetensors")
        shutil.copytree(ROOT / name, folder / name, ignore=others)
    (folder / "listflow").mkdir()
    shutil.copy(ROOT / "listflow" / FACE, folder / "listflow")
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_rule_is_named(copy: Path, name: str) -> None:
    path, text, said = BROKEN[name]
    file, new = copy / path, not (copy / path).parent.exists()
    before = file.read_text("utf-8") if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{before or ''}\n{text}\n" if before else f"{text}\n", "utf-8")
    line = len(file.read_text("utf-8").splitlines())
    try:
        assert [sentence for sentence in everything(House(copy)) if said.format(line=line) in sentence]
    finally:
        if before is not None:
            file.write_text(before, "utf-8")
        elif new:
            shutil.rmtree(file.parent)
        else:
            file.unlink()


def test_full_folders_and_faces_that_make_something_up_are_named(copy: Path) -> None:
    face = copy / "flows" / "server" / FACE
    files = [copy / "flows" / "server" / f"more_{number}.py" for number in range(9)]
    before = face.read_text("utf-8")
    for file in files:
        file.write_text("x = 1\n")
    face.write_text('"""A server.\n\nhosting.py  a server\nhosting.py  once more\ngone.py  nothing\n"""\n', "utf-8")
    try:
        found = everything(House(copy))
    finally:
        face.write_text(before, "utf-8")
        for file in files:
            file.unlink()
    assert any(sentence.startswith("flows/server holds ") for sentence in found)
    assert "flows/server/__init__.py names gone.py, which is not there" in found
    assert "flows/server/__init__.py names hosting.py twice" in found


def _allowed(folder: str) -> set[str]:
    return set(MAY_IMPORT[folder]).union(*(_allowed(other) for other in MAY_IMPORT[folder]))


def _is_module(house: House, module: str, name: str) -> bool:
    path = f"{module}.{name}" if name else module
    return (house.root / f"{path.removeprefix('listflow.').replace('.', '/')}.py").exists()
