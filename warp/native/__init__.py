"""The compiled half of the hot paths, and which half is at work.

Every module here has a twin in plain Python, which is the reference and is at work where the
compiled one could not be built or is switched off by CARTRIDGE_WARP_PURE=1.  Whoever has a
compiled path asks `active()` first; the same tests run on both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from warp.native import binlog, bson, forms, mysql_rows, packed, postgresql, replies
    from warp.native.packed import Packed

_MODULES: Final = ("packed", "replies", "bson", "binlog", "mysql_rows", "postgresql", "forms")
_SWITCH: Final = "CARTRIDGE_WARP_PURE"


def _load() -> str:
    """Import the compiled modules, all or none; why they are not at work, or nothing."""
    if os.environ.get(_SWITCH, "") not in ("", "0"):
        return f"switched off by {_SWITCH}"
    try:
        for name in _MODULES:
            globals()[name] = import_module(f"warp.native.{name}")
    except ImportError as error:
        return str(error)
    return ""


class _NoPacked:
    """Stands for the compiled columns where there are none: nothing is one of these."""


missing: Final = _load()
"""Why the compiled modules are not there; empty where they are."""
_at_work = not missing
if not TYPE_CHECKING:
    Packed = _NoPacked if missing else packed.Packed


def active() -> bool:
    """Are the compiled modules at work?"""
    return _at_work


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """For tests and benchmarks: the compiled modules at work or not, within the block."""
    global _at_work
    before = _at_work
    _at_work = on and not missing
    try:
        yield
    finally:
        _at_work = before


__all__ = [
    "Packed",
    "active",
    "binlog",
    "bson",
    "forms",
    "missing",
    "mysql_rows",
    "packed",
    "postgresql",
    "replies",
    "switched",
]
