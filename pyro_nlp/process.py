"""What a program of ours does to its own process, and asks of it (layer: cli)."""

from __future__ import annotations

import sys
from pathlib import Path


def tune_allocator() -> None:
    """Keep freed memory in the process: with glibc, the large short-lived tensors of text models otherwise cost a page
    fault per 4 KiB at every step. For programs, not for importers; nothing happens where there is no glibc."""
    if sys.platform != "linux":
        return
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


def peak_memory() -> int | None:
    """The most physical memory this process has held, in bytes; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = (line.split() for line in status.read_text(encoding="ascii", errors="ignore").splitlines())
        return next((int(parts[1]) * 1024 for parts in lines if parts and parts[0] == "VmHWM:"), None)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
