from collections.abc import Iterable

from warp.model import Kind
from warp.native.packed import Packed

class Rows:
    """The rows of one result in the text protocol, page by page, as packed columns."""

    def __init__(
        self,
        columns: Iterable[tuple[Kind, str]],
        behind: int,
        rows: int,
        size: int,
        sequence: int,
    ) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def full(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def refused(self) -> bytes | None: ...
    def taken(
        self,
    ) -> tuple[list[Packed], list[dict[int, bytes] | None], tuple[bytes | None, ...]]: ...
    def feed(self, buffer: bytes | bytearray | memoryview, start: int, end: int) -> int: ...
