"""The house as its files stand on disk: which there are, what each imports, and what the face of a folder says.

Paths are from the root of the project, as ``pipeline/run/config.py``; a folder is called by its path, ``pipeline/run``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePath

FLOORS = ("data", "pipeline", "flows")
SCRIPTS = ("data/demo/make_demo.py",)  # run by hand, part of no folder
FACE = "__init__.py"


@dataclass(frozen=True)
class Import:
    """One imported name: ``module`` as it is written, in full, and ``name`` of it, where one is given."""

    file: str
    line: int
    module: str
    name: str = ""

    @property
    def package(self) -> str:
        """The outermost package: ``torch`` of ``torch.nn.functional``."""
        return self.module.partition(".")[0]

    @property
    def words(self) -> str:
        return f"{self.file}, line {self.line}: {'.'.join(filter(None, (self.module, self.name)))}"


@dataclass(frozen=True)
class House:
    """The project in the folder ``root``, of the files that were there when it was first asked for them."""

    root: Path

    def files(self) -> list[str]:
        """All files of code, faces aside."""
        return [path for path in self._all if PurePath(path).name != FACE]

    def faces(self) -> list[str]:
        return [path for path in self._all if PurePath(path).name == FACE]

    def folders(self) -> dict[str, list[str]]:
        """The names of the files in every folder that holds code or has a face."""
        found: dict[str, list[str]] = {folder_of(face): [] for face in self.faces()}
        for path in self.files():
            found.setdefault(folder_of(path), []).append(PurePath(path).name)
        return found

    def tree(self, path: str) -> ast.Module:
        return _parsed((self.root / path).read_text("utf-8"))

    def nodes(self, path: str) -> tuple[ast.AST, ...]:
        """All nodes of ``tree(path)``."""
        return _nodes((self.root / path).read_text("utf-8"))

    def lines(self, path: str) -> int:
        return len((self.root / path).read_text("utf-8").splitlines())

    def imports(self, path: str) -> tuple[Import, ...]:
        """Whatever ``path`` imports, also within functions and for types alone, and ``import_module`` of a literal."""
        return _imports(path, (self.root / path).read_text("utf-8"))

    def home(self, found: Import) -> str | None:
        """Our file that is imported; None for a package of others. A name of ``listflow`` itself lives elsewhere."""
        if found.package != "listflow":
            return None
        module = found.module.removeprefix("listflow").lstrip(".")
        if not module and found.name in (homes := self.public_homes()):
            module = homes[found.name]
        for dotted in (f"{module}.{found.name}" if found.name else "", module):
            for path in (f"{dotted.replace('.', '/')}.py", f"{dotted.replace('.', '/')}/{FACE}"):
                if dotted and path in self._there:
                    return path
        return f"listflow/{FACE}"

    def ties(self, path: str) -> dict[str, Import]:
        """Our files that ``path`` imports, and the first import of each."""
        found: dict[str, Import] = {}
        for one in self.imports(path):
            home = self.home(one)
            if home is not None and home != path:
                found.setdefault(home, one)
        return found

    def public_homes(self) -> dict[str, str]:
        """``_HOMES`` of ``listflow``: the module in which each public name lives."""
        for node in self.tree(f"listflow/{FACE}").body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["_HOMES"]:
                return dict(ast.literal_eval(node.value))
        return {}

    def named(self, face: str) -> list[str]:
        """The files and folders that a face's docstring has a line for: ``x.py`` and ``x/`` at the start of a line."""
        return re.findall(r"^(\w+(?:\.py|/))\s", ast.get_docstring(self.tree(face)) or "", re.MULTILINE)

    @cached_property
    def _all(self) -> list[str]:
        return [name for name in self._there if name not in SCRIPTS]

    @cached_property
    def _there(self) -> dict[str, None]:
        found = (path for floor in FLOORS for path in sorted((self.root / floor).rglob("*.py")))
        return dict.fromkeys(path.relative_to(self.root).as_posix() for path in found)


def folder_of(path: str) -> str:
    return str(PurePath(path).parent)


@lru_cache(maxsize=500)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@lru_cache(maxsize=500)
def _nodes(text: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_parsed(text)))


@lru_cache(maxsize=500)
def _imports(path: str, text: str) -> tuple[Import, ...]:
    return tuple(
        Import(path, node.lineno, module, name)
        for node in _nodes(text)
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
        for module, name in _imported(node, path)
    )


def _imported(node: ast.AST, path: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a statement or a call imports."""
    match node:
        case ast.Import(names=names):
            yield from ((alias.name, "") for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            above = ["listflow", *PurePath(path).parts[:-level]] if level else []
            whole = ".".join([*above, *([module] if module else [])])
            yield from ((whole, alias.name) for alias in names)
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(whole)), *_]):
            if called in {"import_module", "__import__"}:
                yield whole, ""
