"""Memory that a process has freed stays with it, for the next tensor: fresh pages cost more than many a layer."""

from __future__ import annotations

import ctypes
import platform

# of malloc.h, where they are the same on every architecture
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Has this process, and those forked from it, keep what they free, large tensors too.

    By default glibc returns every block of more than 32 MiB to the system as soon as it is freed, and the next one of
    that size is made of fresh pages, which the system fills with zeros first: a feature map of 256 channels at stride 8
    of a Cityscapes image is such a block. What is kept counts as the process's memory until it ends.

    Returns:
        Whether it does; without glibc nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
