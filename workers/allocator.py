"""How much memory the C library keeps of what was given back to it.

glibc gives threads heaps of their own, up to eight for each core, and what was freed in one of them
serves no other.  A slot, its read-ahead and the heartbeat are threads that come and go, so that in
time each heap has held the largest batch once.  MEASURED
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_M_ARENA_MAX: Final = -8
HEAPS: Final = 2


def share_heaps() -> bool:
    """To be called before the first thread; False where there is nothing to set.

    MALLOC_ARENA_MAX of the environment wins: the library has read it at the start.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # of another C library, such as musl
        return False
    return bool(mallopt(_M_ARENA_MAX, HEAPS))
