"""Finds connector classes by name, through entry points, and imports them on first use.

A connector is installed by an entry point in `cartridge_warp.sources` or
`cartridge_warp.destinations`; `package.module:Class` names one that is not.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, Literal, cast

from warp.errors import ConfigError
from warp.interfaces import DestinationConnector, SourceConnector

Side = Literal["source", "destination"]

_GROUPS: Final[dict[Side, str]] = {
    "source": "cartridge_warp.sources",
    "destination": "cartridge_warp.destinations",
}

SCHEMES: Final = {
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "bigquery": "bigquery",
}
"""URL scheme -> connector type."""

_SAME: Final = {"mariadb": "mysql", "postgres": "postgresql", "mongo": "mongodb"}


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?` where something is near, else what there is."""
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names) if names else "there is none"


def canonical(type_name: str) -> str:
    """The type's one name: `mariadb` is served by `mysql`."""
    return _SAME.get(type_name, type_name)


def installed(side: Side) -> tuple[str, ...]:
    return tuple(sorted({e.name for e in entry_points(group=_GROUPS[side])}))


def type_of_url(url: str) -> str | None:
    """The connector type that a connection string asks for by its scheme."""
    scheme, colon, _ = url.partition("://")
    return SCHEMES.get(scheme.lower()) if colon else None


def source(type_name: str) -> type[SourceConnector]:
    return cast("type[SourceConnector]", _connector("source", type_name))


def destination(type_name: str) -> type[DestinationConnector]:
    return cast("type[DestinationConnector]", _connector("destination", type_name))


def forget() -> None:
    """Look again at what is installed."""
    _connector.cache_clear()


@cache
def _connector(side: Side, type_name: str) -> Any:
    place = f"{side}.type"
    if ":" in type_name:
        module, _, name = type_name.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"expected an importable class written package.module:Class, "
                f"found {type_name!r}: {error}",
                place=place,
            ) from error
    found = {e.name: e for e in entry_points(group=_GROUPS[side])}
    if type_name not in found:
        raise ConfigError(
            f"expected the type of an installed {side} connector, found {type_name!r}; "
            f"{nearest(type_name, found)}",
            place=place,
        )
    try:
        return found[type_name].load()
    except ImportError as error:
        raise ConfigError(
            f"the connector {type_name!r} is installed but cannot be imported: {error}; "
            "install what it names",
            place=place,
        ) from error
