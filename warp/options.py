"""The words options are written in: durations, sizes, counts, secrets; shared by every block.

A connector declares `class Options(ConnectorOptions)` with its own keys; the configuration fills
it from the `source:` or `destination:` block.  Each type says itself what it expects, so that
an error names the expectation and not a validator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

MASK: Final = "***"

_URL_PASSWORD = re.compile(r"(\b[a-zA-Z][\w+.-]*://[^\s/:@\"']*:)[^\s\"']*@")
_NAMED_SECRET = re.compile(
    r"(\b\w*(?:password|passwd|pwd|secret|token)=)('[^']*'|[^\s&;,\"']+)", re.IGNORECASE
)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]i?B|B)")
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_BINARY: Final = {"kib": 2**10, "mib": 2**20, "gib": 2**30}


def redact(text: str) -> str:
    """The text with passwords in URLs and in `password=…` pairs masked (guarantee 10)."""
    masked = _URL_PASSWORD.sub(rf"\1{MASK}@", text)
    return _NAMED_SECRET.sub(rf"\1{MASK}", masked)


def secrets_in(value: str) -> set[str]:
    """What must not be shown of a secret value: of a URL its password, else all of it."""
    if "://" not in value:
        return {value}
    try:
        password = urlsplit(value).password
    except ValueError:
        return {value}
    return {password, unquote(password)} if password else set()


def expected(what: str) -> PydanticCustomError:
    """A validation error that says what would have been right; the place is added above."""
    return PydanticCustomError("expected", "expected {what}", {"what": what})


def parse_duration(value: object) -> float:
    """Seconds of `2s`, `500ms`, `1h30m` or a plain number."""
    what = "a duration such as 500ms, 2s, 10m or 1h30m (a plain number is seconds)"
    if isinstance(value, str):
        text = value.strip()
        try:
            seconds = float(text)
        except ValueError:
            parts = _DURATION_PART.findall(text)
            if not parts or "".join(n + unit for n, unit in parts) != text:
                raise expected(what) from None
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise expected(what)
    if not 0 <= seconds < float("inf"):
        raise expected("a duration that is not negative and not endless")
    return seconds


def _positive_duration(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise expected("a duration above zero")
    return seconds


def parse_size(value: object) -> int:
    """Bytes of `16MB`, `64KiB` or a plain number."""
    what = "a size such as 512kB, 16MB or 64MiB (a plain number is bytes)"
    if isinstance(value, bool):
        raise expected(what)
    if isinstance(value, int):
        size = value
    elif isinstance(value, str) and value.strip().isdigit():
        size = int(value)
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        size = int(float(found[1]) * (_BYTES | _BINARY)[found[2].lower()])
    else:
        raise expected(what)
    if size <= 0:
        raise expected("a size above zero")
    return size


def _whole(minimum: int, maximum: int | None, what: str) -> BeforeValidator:
    def check(value: object) -> int:
        # bool is an int to Python; `batch_size: yes` is a mistake all the same.
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
            number = int(value)
        if number is None or number < minimum or (maximum is not None and number > maximum):
            raise expected(what)
        return number

    return BeforeValidator(check)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise expected("text that is not empty")
    return value


def _number(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]  # the error is the answer
    except (TypeError, ValueError):
        raise expected("a number of at least 1") from None
    if not 1 <= number < float("inf"):
        raise expected("a number of at least 1")
    return number


def _secret(value: object) -> Any:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str) or not value:
        raise expected("text that is not empty")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, zero allowed."""
PositiveDuration = Annotated[float, BeforeValidator(_positive_duration)]
"""Seconds above zero."""
Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes."""
Count = Annotated[int, _whole(1, None, "a whole number above 0")]
Natural = Annotated[int, _whole(0, None, "a whole number of at least 0")]
Port = Annotated[int, _whole(0, 65_535, "a port: a whole number from 0 to 65535 (0 picks one)")]
Factor = Annotated[float, BeforeValidator(_number)]
"""At least 1."""


def _share(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        text = str(value).strip()
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (TypeError, ValueError):
        raise expected("a share such as 5% or 0.05") from None
    if not 0 < number <= 1:
        raise expected("a share above 0, and at most 100%")
    return number


Share = Annotated[float, BeforeValidator(_share)]
"""Above 0 and at most 1; may be written as a percentage."""
Text = Annotated[str, BeforeValidator(_text)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
"""Shown as ***; `.get_secret_value()` where it is used."""


def known_keys(model: type[BaseModel]) -> dict[str, str]:
    """Key as written in the configuration -> name of the field."""
    return {f.alias or name: name for name, f in model.model_fields.items()}


class Block(BaseModel):
    """One block of the configuration: unknown keys are errors, values never change, and no
    validation error repeats an input, which may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = known_keys(cls)
            for key in data:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key", "unknown key", {"key": str(key), "known": sorted(known)}
                    )
        return data


class ConnectorOptions(Block):
    """What every connector needs; subclass it as `Options` and add keys.

    A field's description is the text of `docs/configuration.md`.
    """

    connection_string: Secret = Field(description="URL of the server; the scheme says the type")
    database: Text | None = Field(
        default=None,
        description="database to work on; the path of the connection string where not given",
    )

    @property
    def url(self) -> str:
        """The connection string, in clear."""
        return self.connection_string.get_secret_value()
