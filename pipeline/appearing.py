"""Files that appear whole or not at all, even where two processes write the same one at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from listflow.data.files import put
from listflow.pipeline.storing import storing


@contextmanager
def appears(path: Path) -> Iterator[Path]:
    """A file to fill, which at the end of the block takes the place of ``path``; its name is nobody else's."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with storing(path.parent):
        try:
            yield aside
            put(aside, path)
        finally:
            aside.unlink(missing_ok=True)
