"""What a process pays for the memory of its tensors."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from listflow.pipeline.backbone.backbone import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):
    torch.zeros(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.zeros(2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
def test_that_freed_memory_is_used_again_where_the_environment_forbids_it() -> None:
    """A tensor of 4 MiB is a thousand pages; dask starts its workers with this threshold."""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    faults = {
        kept: int(subprocess.check_output([sys.executable, "-c", FAULTS, kept], env=environment, text=True))
        for kept in ("kept", "not")
    }
    assert faults["kept"] * 10 < faults["not"]
