"""Files that appear whole or not at all, even where two processes write the same one at the same time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from data.errors import InputError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


@contextmanager
def appears(path: Path) -> Iterator[Path]:
    """A file to fill, which at the end of the block takes the place of ``path``; its name is nobody else's."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with storing(path.parent):
        try:
            yield aside
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """InputError where nothing can be stored in ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        reason = os.strerror(error.errno)
        raise InputError(
            f"cannot write to {folder} ({reason}); free some space or mend its permissions, then give the same "
            "command again."
        ) from error
