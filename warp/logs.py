"""Log lines as JSON, one object a line, from our code and from every library alike.

Everything goes through the standard library's logging, so that levels are set per module and
pymongo, redis and rq write the same lines.  The last step before a line is written masks
passwords (guarantee 10).  Lines go to stderr: stdout is for data.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.contextvars import bound_contextvars as bind
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from warp.config import LogFormat, LoggingSettings, LogLevel
from warp.options import MASK, redact

__all__ = ["Redaction", "bind", "configure", "masked"]

# Talkative at info; a level named in the configuration wins.
_QUIET: Final = {"pymongo": LogLevel.WARNING, "urllib3": LogLevel.WARNING}
_IDS: Final = ("run", "unit", "worker", "fence", "batch")  # on every line of a unit
_FIRST: Final = ("ts", "level", "event", "logger", *_IDS)
_SECRET_KEYS: Final = ("password", "passwd", "secret", "token", "api_key", "credentials")
# Shorter secrets are masked in URLs and pairs only: masking every "a" would leave no log.
_SHORTEST_SECRET: Final = 4


class Redaction:
    """Masks secrets in everything a line holds, whatever its type."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one secret may contain another.
        known = {s for s in secrets if len(s) >= _SHORTEST_SECRET}
        self._secrets = sorted(known, key=len, reverse=True)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self._value(key, value) for key, value in event.items()}

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redact(text)

    def _value(self, key: str, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if key.lower().endswith(_SECRET_KEYS):
            return MASK
        if isinstance(value, Mapping):
            return {self.text(str(k)): self._value(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value("", v) for v in value]
        # Anything else is turned into text here, so that no renderer calls a repr after us.
        return self.text(value if isinstance(value, str) else str(value))


_of_this_process = Redaction()


def masked(text: str) -> str:
    """A text without the secrets of this process, for a store or for people (guarantee 10).

    An error's text is whatever a driver put into it.
    """
    return _of_this_process.text(text)


def configure(
    settings: LoggingSettings,
    *,
    secrets: Iterable[str] = (),
    process: str = "",
    stream: TextIO | None = None,
) -> None:
    """Set up logging for this process; calling it again replaces what was set up.

    `process` (coordinator, worker, …) stands on every line.  Ids of the moment are bound by
    `bind(run=…, unit=…, worker=…, fence=…, batch=…)`, which holds for one thread.
    """
    global _of_this_process
    _of_this_process = redaction = Redaction(secrets)
    stream = stream or sys.stderr
    as_json = settings.format is LogFormat.JSON or (
        settings.format is LogFormat.AUTO and not stream.isatty()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts" if as_json else "timestamp"),
    ]
    if process:
        shared.append(_constant("process", process))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers live in module globals; a process that configures late must not be too late.
        cache_logger_on_first_use=False,
    )
    ends: list[Processor] = [
        ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redaction,
        _as_json if as_json else _for_people(stream),
    ]
    output = logging.StreamHandler(stream)
    output.setFormatter(ProcessorFormatter(foreign_pre_chain=shared, processors=ends))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(settings.level.upper())
    for module, level in {**_QUIET, **settings.levels}.items():
        logging.getLogger(module).setLevel(level.upper())
    logging.captureWarnings(True)


def _constant(key: str, value: str) -> Processor:
    def add(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.setdefault(key, value)
        return event

    return add


def _as_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in _FIRST if key in event}
    line = {**first, **event}
    try:
        return orjson.dumps(line).decode()
    except (
        TypeError
    ):  # an integer above 64 bits, a lone surrogate: a line must come out all the same
        return json.dumps(line, default=str)


def _for_people(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        # Rich tracebacks would print local variables, which hold connection strings.
        exception_formatter=structlog.dev.plain_traceback,
    )
