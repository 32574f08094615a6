"""A file that says: at this place in the log, these tables had these rows.  Pure.

Whoever has the destination can prove it again: `warp.destinations.*.witness` reads the rows as any
client would and adds their hashes up anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from warp.digest import RULE
from warp.digest.sums import Sums
from warp.errors import ConfigError

FORM: Final = "cartridge-warp certificate"


@dataclass(frozen=True, slots=True)
class Page:
    """One table."""

    schema: str
    source: tuple[str, str]  # namespace and name
    destination: tuple[str, str]
    columns: tuple[tuple[str, str], ...]  # name and kind, in the order they are hashed
    soft_delete_column: str | None
    rows: int
    digest: str  # as warp.digest.sums writes it
    pass_number: int
    oldest_verdict: float  # Unix seconds
    newest_verdict: float


@dataclass(frozen=True, slots=True)
class Place:
    """How far a stream had come when the rows were summed up."""

    unit: str
    position: str | None
    batch: int
    rows: int  # that it had brought; unlike the batch, an idle stream leaves it as it is
    fence: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Certificate:
    written_at: float
    version: str  # of the program
    configuration: str  # its hash
    source: str  # without secrets
    destination: str
    streams: tuple[Place, ...]
    tables: tuple[Page, ...]
    rule: int = RULE


def written(certificate: Certificate) -> str:
    """The file's text."""
    content = {"form": FORM, **asdict(certificate)}
    return json.dumps({**content, "seal": _seal(content)}, indent=2) + "\n"


def read(text: str, *, place: str) -> Certificate:
    """ConfigError where it is not what `written` wrote, to the letter of every value."""
    try:
        content: Any = json.loads(text)
        seal = content.pop("seal")
        form = content.pop("form")
        rule = content["rule"]
        genuine = seal == _seal({"form": form, **content})
        found = Certificate(
            **content
            | {
                "streams": tuple(Place(**one) for one in content["streams"]),
                "tables": tuple(map(_page, content["tables"])),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"expected a certificate, found something else ({type(error).__name__}: {error})",
            place=place,
        ) from None
    if form != FORM or not genuine:
        raise ConfigError(
            "expected a certificate as it was written, found one whose seal does not fit its "
            "content: it was changed since; write a new one by `verify --certificate`",
            place=place,
        )
    if rule != RULE:
        raise ConfigError(
            f"expected a certificate by rule {RULE}, found rule {rule}; check it with the version "
            f"that wrote it ({found.version})",
            place=place,
        )
    return found


def _page(content: dict[str, Any]) -> Page:
    Sums.read(content["digest"])
    return Page(
        **content
        | {
            "source": _pair(content["source"]),
            "destination": _pair(content["destination"]),
            "columns": tuple(map(_pair, content["columns"])),
        }
    )


def _pair(of: Sequence[str]) -> tuple[str, str]:
    first, second = of
    return str(first), str(second)


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
