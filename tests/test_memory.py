"""Freed memory stays in the process, with glibc."""

import platform
import subprocess
import sys

import pytest

from spinet.speed import memory

FAULTS = """
import resource
import sys
import torch
from spinet.speed.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(12):
    torch.ones(2**24)  # 64 MiB, gone at once; with the first ones the heap grows
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc is what it is for")
def test_large_tensors_take_fewer_fresh_pages():
    keeping, leaving = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, mode])) for mode in ("keep", "leave")
    )
    assert keeping < leaving / 2


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("asked for a C library"))
    assert not memory.keep_freed_memory()
