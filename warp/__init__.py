"""cartridge-warp: change data capture by a pool of leased workers.

This package is the library: what moves and how.  It knows nothing of processes;
those are `workers`, `coordinator` and `commands`, which import it.
"""

__version__ = "0.1.0"
