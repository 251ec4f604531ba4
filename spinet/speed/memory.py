"""Keep freed memory in the process for the next tensors: new pages cost more time than many layers."""

from __future__ import annotations

import ctypes
import platform

# from malloc.h, the same on every architecture
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Make this process, and processes forked from it, keep freed memory, also that of large tensors.

    By default glibc returns every block of more than 32 MiB to the system as soon as it is freed. The next block of
    that size gets new pages, which the system first fills with zeros. A feature map of 256 channels at stride 8 of a
    Cityscapes image is such a block. Kept memory counts as the process's memory until the process ends.

    Returns:
        True if set; without glibc nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
