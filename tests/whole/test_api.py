"""The public names: said three times in listflow/__init__.py, and the same each time."""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import version
from pathlib import Path

import pytest

import listflow

FACE = Path(listflow.__file__)


def typed_homes() -> dict[str, str]:
    """The module of each name that is imported for type checkers, as ``_HOMES`` would say it."""
    (block,) = (node for node in ast.parse(FACE.read_text("utf-8")).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(node.module and node.level == 0 for node in imports)
    return {alias.name: str(node.module).removeprefix("listflow.") for node in imports for alias in node.names}


def test_all_homes_and_types_agree() -> None:
    assert typed_homes() == listflow._HOMES
    assert set(listflow.__all__) == {*listflow._HOMES, "__version__"}
    assert len(set(listflow.__all__)) == len(listflow.__all__)


@pytest.mark.parametrize("name", sorted(listflow._HOMES))
def test_a_public_name_is_the_one_of_its_home(name: str) -> None:
    home = importlib.import_module(f"listflow.{listflow._HOMES[name]}")
    assert getattr(listflow, name) is getattr(home, name)
    assert getattr(listflow, name).__module__ == home.__name__  # where it is defined, not only imported


def test_the_version_is_that_of_the_package() -> None:
    assert listflow.__version__ == version("listflow")


def test_an_unknown_name_is_said_in_pythons_words() -> None:
    with pytest.raises(AttributeError, match=r"^module 'listflow' has no attribute 'Predicter'$"):
        _ = listflow.Predicter
    with pytest.raises(ImportError, match="cannot import name 'Predicter' from 'listflow'"):
        exec("from listflow import Predicter", {})


def test_dir_is_what_is_public() -> None:
    assert dir(listflow) == sorted(listflow.__all__)


def test_a_star_import_brings_all_of_it_and_nothing_else() -> None:
    found: dict[str, object] = {}
    exec("from listflow import *", found)
    del found["__builtins__"]
    assert found == {name: getattr(listflow, name) for name in listflow.__all__}
