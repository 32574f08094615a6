"""Turns a validation error into the one line a person needs.

It names the path, what was expected, what was found and where that was written; never a secret.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from warp.config.layers import PREFIX, Layer, Place, Tree, kind_of, written
from warp.errors import ConfigError
from warp.options import MASK, redact
from warp.plugins import nearest

_SECRET: Final = re.compile(r"(connection_string|_url|password|secret|token|credentials|key)$")

# What pydantic's own validators expect, for connectors whose options use plain types.
_EXPECTED: Final = {
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "dict_type": "a block of keys",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
}


def is_secret(place: Place) -> bool:
    return bool(place) and bool(_SECRET.search(str(place[-1])))


def shown(value: object, place: Place) -> str:
    """A value as an error may show it: short, without secrets."""
    if is_secret(place) and isinstance(value, str | int | float):
        return MASK  # numbers too: a password may be one
    text = redact(kind_of(value))
    return text if len(text) <= 60 else text[:57] + "..."


def complain(error: ValidationError, tree: Tree, block: Place = ()) -> ConfigError:
    """The error to raise: about the first mistake, saying how many more there are."""
    details = error.errors(include_url=False)
    result = _one(details[0], tree, block)
    if more := len(details) - 1:
        result = ConfigError(
            f"{result.message} [and {more} more mistake{'s' if more > 1 else ''}]",
            place=result.place,
        )
    return result


def _one(detail: ErrorDetails, tree: Tree, block: Place) -> ConfigError:
    context: Mapping[str, Any] = detail.get("ctx", {})
    place: Place = (*block, *detail["loc"])
    kind = detail["type"]
    if kind == "at":  # found by a check that looks at several places
        place = (*block, *context["path"])
        message = detail["msg"]
    elif kind == "unknown_key":
        place = (*place, context["key"])
        message = f"unknown key; {nearest(context['key'], context['known'])}"
    elif kind == "extra_forbidden":
        message = "unknown key; remove it"
    elif kind == "missing":
        message = _missing(place)
    elif kind == "expected":
        what = context["what"]
        message = f"expected {what}, found {shown(tree.get(place), place)}"
        message += _near(tree.get(place), what)
    elif kind in _EXPECTED:
        what = _EXPECTED[kind].format_map(context)
        message = f"expected {what}, found {shown(tree.get(place), place)}"
    else:
        message = redact(detail["msg"].removeprefix("Value error, "))
    origin = tree.origin(place)
    if origin.layer is not Layer.DEFAULT:
        message += f" ({origin})"
    return ConfigError(" ".join(message.split()), place=written(place))


def _missing(place: Place) -> str:
    end, key = place[0], place[-1]
    if key == "connection_string":
        return (
            f"missing; expected a URL here (or in connection_string_file), in "
            f"{PREFIX}{str(end).upper()}, or by --{end}"
        )
    return "missing; expected a value"


def _near(value: object, what: str) -> str:
    """A suggestion where the choices are few."""
    if not isinstance(value, str):
        return ""
    if what.startswith("one of "):
        suggestion = nearest(value.lower(), what.removeprefix("one of ").split(", "))
    elif what.startswith("a time zone"):
        suggestion = nearest(value, zoneinfo.available_timezones())
    else:
        return ""
    return f"; {suggestion}" if suggestion.startswith("did") else ""
