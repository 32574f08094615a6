"""Log lines: one JSON object each, with the ids of the moment and without secrets."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from warp import logs
from warp.config import LogFormat, LoggingSettings, LogLevel

PASSWORD = "hunter2-geheim"
URL = f"mongodb://reader:{PASSWORD}@db.example:27017/shop"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("pymongo", "urllib3", "warp.pipeline"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def configured(
    stream: io.StringIO,
    *,
    level: LogLevel = LogLevel.INFO,
    format: LogFormat = LogFormat.AUTO,
    levels: dict[str, LogLevel] | None = None,
    secrets: tuple[str, ...] = (),
) -> io.StringIO:
    logs.configure(
        LoggingSettings(level, format, levels or {}),
        secrets=secrets,
        process="worker",
        stream=stream,
    )
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_event_first() -> None:
    stream = configured(io.StringIO())

    structlog.get_logger("warp.pipeline").info("unit_released", rows=7, text="two\nlines")

    (line,) = lines(stream)
    assert list(line)[:4] == ["ts", "level", "event", "logger"]
    assert line["ts"].endswith("Z")
    assert line["level"] == "info"
    assert line["logger"] == "warp.pipeline"
    assert line["process"] == "worker"
    assert (line["rows"], line["text"]) == (7, "two\nlines")


def test_every_line_carries_the_ids_bound_in_its_thread_and_no_others() -> None:
    stream = configured(io.StringIO())
    log = structlog.get_logger("warp.pipeline")
    both_bound = threading.Barrier(2)

    def work(unit: str, fence: int) -> None:
        with logs.bind(run="r", unit=unit, worker="w", fence=fence, batch=3):
            both_bound.wait()
            log.info("inside")
        log.info("outside")

    threads = [threading.Thread(target=work, args=(f"stream:{n}", n)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    inside = [line for line in lines(stream) if line["event"] == "inside"]
    assert {(x["run"], x["unit"], x["worker"], x["fence"], x["batch"]) for x in inside} == {
        ("r", "stream:1", "w", 1, 3),
        ("r", "stream:2", "w", 2, 3),
    }
    assert list(inside[0])[4:9] == ["run", "unit", "worker", "fence", "batch"]
    assert all("unit" not in line for line in lines(stream) if line["event"] == "outside")


def test_lines_of_libraries_are_json_too_and_carry_the_same_ids() -> None:
    stream = configured(io.StringIO())

    with logs.bind(unit="stream:shop"):
        logging.getLogger("pymongo.connection").warning("server %s is gone", "db1")

    (line,) = lines(stream)
    assert line["event"] == "server db1 is gone"
    assert line["logger"] == "pymongo.connection"
    assert line["unit"] == "stream:shop"


def test_a_warning_of_python_is_a_log_line() -> None:
    stream = configured(io.StringIO())

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old call", DeprecationWarning, stacklevel=1)

    assert "old call" in lines(stream)[0]["event"]


def test_levels_hold_per_module() -> None:
    stream = configured(
        io.StringIO(),
        level=LogLevel.WARNING,
        levels={"warp.pipeline": LogLevel.DEBUG, "pymongo": LogLevel.ERROR},
    )

    structlog.get_logger("warp.pipeline").debug("seen")
    structlog.get_logger("warp.evolve").info("not seen")
    logging.getLogger("pymongo.topology").warning("not seen either")

    assert [line["event"] for line in lines(stream)] == ["seen"]


def test_a_terminal_gets_lines_for_people_and_json_only_when_asked() -> None:
    for_people = configured(Terminal())
    structlog.get_logger("warp").info("unit_released", rows=7)
    asked = configured(Terminal(), format=LogFormat.JSON)
    structlog.get_logger("warp").info("unit_released", rows=7)

    assert not for_people.getvalue().startswith("{")
    assert "unit_released" in for_people.getvalue()
    assert lines(asked)[0]["rows"] == 7


def test_values_that_json_does_not_know_still_make_a_line() -> None:
    stream = configured(io.StringIO())

    structlog.get_logger("warp").info(
        "odd", big=2**80, lone="\ud800", nan=float("nan"), nested={1: object}
    )

    assert lines(stream)[0]["big"] == 2**80


class Connection:
    def __repr__(self) -> str:
        return f"Connection({URL})"


def log_secrets_in_every_way(log: Any) -> None:
    log.info(f"connecting to {URL}")  # noqa: G004  a secret inside the event itself
    log.info("connecting", url=URL, nested={"deep": [URL, {"password": PASSWORD}]})
    log.info("object", connection=Connection(), raw=URL.encode(), several={URL})
    log.info("pair", dsn=f"host=db password={PASSWORD} dbname=x", secret=PASSWORD, bare=PASSWORD)
    try:
        raise ValueError(f"cannot reach {URL} as {PASSWORD}")
    except ValueError:
        log.exception("failed")
    logging.getLogger("pymongo").error("auth failed for %s", URL)
    with logs.bind(location=URL):
        log.info("bound")


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
@pytest.mark.holds(guarantee=10, source="none", destination="pretended", fault="planted passwords")
def test_no_line_holds_a_password_whatever_way_it_came(stream_type: type[io.StringIO]) -> None:
    stream = configured(stream_type(), secrets=(PASSWORD,))

    log_secrets_in_every_way(structlog.get_logger("warp"))

    assert "db.example" in stream.getvalue()
    assert PASSWORD not in stream.getvalue()


def test_without_redaction_the_password_would_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the test above (guarantee 10)."""
    monkeypatch.setattr(logs.Redaction, "__call__", lambda self, logger, method, event: event)
    stream = configured(io.StringIO(), format=LogFormat.CONSOLE, secrets=(PASSWORD,))

    log_secrets_in_every_way(structlog.get_logger("warp"))

    assert PASSWORD in stream.getvalue()


def test_passwords_in_urls_are_masked_even_when_nobody_named_them() -> None:
    stream = configured(io.StringIO())

    structlog.get_logger("warp").info("connecting", url="redis://:s3@cache:6379/0")

    assert lines(stream)[0]["url"] == "redis://:***@cache:6379/0"
