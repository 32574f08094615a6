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

def crc32(data: bytes) -> int: ...

@final
class Transactions:
    """Small transactions that lie whole in a buffer and are like ones that were seen before."""

    @property
    def start(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def server(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def committed_at(self) -> float: ...
    def forget(self) -> None: ...
    def know(
        self,
        body: bytes,
        sort: int,
        there: bytes,
        plan: Plan,
        filling: Filling,
        operations: bytearray,
        versions: list[int],
        code: int,
    ) -> None: ...
    def take(
        self,
        buffer: bytes | bytearray | memoryview,
        start: int,
        end: int,
        sequence: int,
        position: int,
        domain: int,
        source: bytes,
        number: int,
        version: int,
        rows: int,
        size: int,
        most_rows: int,
        most_bytes: int,
    ) -> None: ...
