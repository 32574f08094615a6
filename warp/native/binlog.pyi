from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from warp.model import Cells, Kind

Described = tuple[
    str, Kind | None, int, int, int, int, bool, bool, Callable[[bytes], Any], list[bytes] | None
]

@final
class Plan:
    """How the rows of one table map are read."""

    def __init__(self, columns: Iterable[Described]) -> None: ...
    @property
    def kinds(self) -> list[Kind]: ...

@final
class Filling:
    """Columns that grow by the rows of events."""

    def __init__(self, kinds: Iterable[Kind]) -> None: ...
    @property
    def rows(self) -> int: ...
    def columns_made(self) -> list[Cells]: ...
    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None: ...
    def insert(
        self, plan: Plan, event: bytes, start: int, end: int, there: bytes, deleted: bool
    ) -> int: ...
    def update(
        self,
        plan: Plan,
        event: bytes,
        start: int,
        end: int,
        there_before: bytes,
        there_after: bytes,
    ) -> int: ...
