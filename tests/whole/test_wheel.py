"""What is installed: one import name, with every file of the three folders behind it, and nothing beside it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from listflow.data.task import load_task

ROOT = Path(__file__).parents[2]
FOLDERS = ("data", "pipeline", "flows")
DESCRIBING = {"pyproject.toml", "README.md", "MANIFEST.in"}
ADDED_BY_SETUPTOOLS = {"PKG-INFO", "setup.cfg"}
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
REMEMBERED = ("data/errors.py", "data/tasks/sst2.yaml", "pipeline/self_training.py", "flows/cli/main.py")
QUICK = ("teacher.epochs=2", "student.steps=6", "student.warmup=0.5", "student.tail_epochs=1", "rounds.test_rows=20",
         "rounds.sample=20", "backbone.precision=fp32")  # fmt: skip


def test_the_wheel_is_listflow_and_all_of_it(tmp_path: Path) -> None:
    wheel = built(checkout(tmp_path / "tree"), "build_wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert files_of(archive) == house()
        for name in ("listflow/__init__.py", "listflow/data/errors.py", "listflow/py.typed"):
            assert archive.read(name) == (ROOT / name).read_bytes(), name
        about = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        assert archive.read(about["top_level.txt"]).split() == [b"listflow"]
        assert b"listflow = listflow.flows.cli.main:main" in archive.read(about["entry_points.txt"])


def test_the_sdist_is_the_same_files_and_makes_the_same_wheel(tmp_path: Path) -> None:
    tree = checkout(tmp_path / "tree")
    # What an editable install from before the one import name leaves in a checkout.
    (tree / "listflow.egg-info").mkdir()
    (tree / "listflow.egg-info" / "SOURCES.txt").write_text("\n".join(REMEMBERED), "utf-8")
    with tarfile.open(built(tree, "build_sdist", tmp_path)) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        assert all(member.isreg() for member in members), "links are plain files in an sdist"
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    names = {member.name.removeprefix(f"{unpacked.name}/") for member in members}
    names = {name for name in names if not name.startswith("listflow.egg-info/")}
    assert names == house() | DESCRIBING | ADDED_BY_SETUPTOOLS
    with zipfile.ZipFile(built(unpacked, "build_wheel", tmp_path)) as archive:
        assert files_of(archive) == house()


@pytest.mark.long
def test_an_installed_wheel_beside_files_of_the_old_names(tmp_path: Path) -> None:
    environment = installed(built(checkout(tmp_path / "tree"), "build_wheel", tmp_path), tmp_path / "environment")
    work = tmp_path / "project"
    work.mkdir()
    for name in FOLDERS:
        (work / f"{name}.py").write_text("raise SystemExit('executed by accident')\n", "utf-8")
    (work / "new.csv").write_text("text\nwhere is my parcel\nI was charged twice\n", "utf-8")

    def ran(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / program, *arguments], cwd=work, env=quiet(tmp_path / "home"), capture_output=True,
            text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = ran("python", "-c", "import listflow; print(listflow.__file__, listflow.__version__)").split()
    assert Path(where[0]).is_relative_to(environment)
    ran("listflow", "run", "--rounds", "1", "--run-dir", "run", *(word for value in QUICK for word in ("--set", value)))
    ran("listflow", "predict", "run", "--input", "new.csv", "--output", "labelled.csv")
    with (work / "labelled.csv").open(encoding="utf-8", newline="") as rows:
        labels = [row["label"] for row in csv.DictReader(rows)]
    asked = "from listflow import Predictor; print(*Predictor.open('run').predict(['where is my parcel',"
    assert ran("python", "-c", f"{asked} 'I was charged twice']))").split() == labels
    assert set(labels) <= set(load_task("demo").labels)


def checkout(folder: Path) -> Path:
    """A copy of what a package is built from, so that no ``build`` and no ``egg-info`` is left in the tree itself."""
    for name in ("listflow", *FOLDERS):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in DESCRIBING:
        shutil.copy(ROOT / name, folder)
    return folder


def built(tree: Path, what: str, out: Path) -> Path:
    """The archive that setuptools makes of ``tree`` without network: ``build_wheel`` or ``build_sdist``."""
    before = set(out.iterdir())
    command = [sys.executable, "-c", BUILD, what, str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (path for path in out.iterdir() if path not in before and path.suffix in {".whl", ".gz"})
    return archive


def house() -> set[str]:
    """Every file that a package has to hold, by its name in there."""
    inside = (path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file())
    named = {path.relative_to(ROOT).as_posix() for path in inside if "__pycache__" not in path.parts}
    return {"listflow/__init__.py", "listflow/py.typed"} | {f"listflow/{name}" for name in named}


def files_of(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def installed(wheel: Path, environment: Path) -> Path:
    """A new environment with ``wheel`` alone, that finds what it depends on where this one does."""
    venv.create(environment, with_pip=True, symlinks=True)
    command = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(command, check=True, timeout=300)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    # By a .pth file the folders are on the path, but their own .pth files are not read: no editable listflow.
    dependencies = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (packages / "dependencies.pth").write_text("\n".join(dependencies), "utf-8")
    return environment


def quiet(home: Path) -> dict[str, str]:
    """The environment of a command that asks no network and leaves nothing in the user's own folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    return kept | {"PREFECT_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
