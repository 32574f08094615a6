from collections.abc import Callable, Sequence
from typing import Any

from warp.model import Kind
from warp.native.packed import Packed

def json_form(text: bytes | str) -> str | None: ...
def row_texts(
    columns: Sequence[Packed | list[str]], slowly: Callable[[Kind, Any], str]
) -> list[bytes]: ...
