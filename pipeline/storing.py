"""A sentence where there is no room to store anything, or no permission."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from listflow.data.errors import InputError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
REFUSED = FULL | {errno.EACCES}


@contextmanager
def storing(folder: Path, reasons: frozenset[int] = REFUSED) -> Iterator[None]:
    """InputError where nothing can be stored in ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise InputError(
            f"cannot write to {folder} ({os.strerror(error.errno)}); free some space or choose another folder, then "
            "give the same command again."
        ) from error
