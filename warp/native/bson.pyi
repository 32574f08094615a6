from collections.abc import Sequence
from typing import Any, final

from warp.model import Kind
from warp.native.packed import Packed

@final
class Layout:
    """The columns of one table, ready to take documents."""

    def __init__(self, columns: Sequence[tuple[str, Kind, bytes, bool, int, int]]) -> None: ...
    def shape(
        self, raw: Sequence[bytes], operations: bytes
    ) -> tuple[
        list[Packed], list[int], list[tuple[int, bytes]], list[tuple[int, str, str, bool]]
    ]: ...

def spliced(column: Packed, rows: list[int], cells: list[Any]) -> Packed | list[Any]: ...
