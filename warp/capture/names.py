"""Names of what is installed at the source.  Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from warp.model import TableId

SCHEMA: Final = "cartridge_warp_capture"
_READABLE: Final = 40


def queue(table: TableId) -> str:
    """A table's own name there: short and plain, whatever the table is called."""
    plain = re.sub(r"[^a-z0-9]+", "_", table.name.lower()).strip("_")[:_READABLE]
    told = hashlib.sha256(f"{table.namespace}\0{table.name}".encode()).hexdigest()[:12]
    return f"{plain}_{told}" if plain else told
