"""Memory of CPU tensors that is used again instead of being asked for anew at every step."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 64 * 2**20
KEPT_IN_ALL = 256 * 2**20


def keep_freed_memory() -> None:
    """Freed blocks of up to 64 MiB stay with this process until 256 MiB of them lie together; on other C libraries
    than glibc nothing is changed.

    Otherwise each large tensor is mapped afresh, and the kernel fills it with zeros first: some percent of the time,
    and a third of labelling in a dask worker, whose environment (MALLOC_TRIM_THRESHOLD_) forbids to keep anything.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_IN_ALL)
