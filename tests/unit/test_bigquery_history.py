"""`strategy: log` of BigQuery: what is asked of CHANGES() and APPENDS(), and made of the answers.

No emulator knows these functions, so the service is pretended; the answers are of the form that
Google's documentation gives.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from pretended_bigquery import HOUR, NOW, ORDERS, Answer, Pretended, orders, source_of

from warp.capture.clocks import iso
from warp.capture.places import Place, Strategy
from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.model import ABSENT, ChangeBatch, Operation, Position
from warp.sources.bigquery import BigQuerySource, history, runs

UPDATE, DELETE, TRUNCATE = Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE
FIELDS = [("id", "INTEGER"), ("name", "STRING"), ("_cw_type", "STRING"), ("_cw_at", "INTEGER")]


def place(hours_ago: float) -> Position:
    at = NOW - int(hours_ago * HOUR)
    return Place(Strategy.HISTORY, upto=at, version=at).position(1.0)


def changes(*rows: tuple[int, str | None, str, int]) -> Answer:
    return Answer(r"CHANGES\(|APPENDS\(", FIELDS, rows)


def poll(source: BigQuerySource, position: Position | None) -> list[ChangeBatch]:
    return list(source.poll(ORDERS, position, fire_time=5.0))


def events(batches: list[ChangeBatch]) -> list[tuple[Any, ...]]:
    return [
        (Operation(operation), version, *row)
        for batch in batches
        for part in batch.changes
        for operation, version, row in zip(part.operations, part.versions, part.rows(), strict=True)
    ]


def span_of(statement: str) -> list[str]:
    return re.findall(r"TIMESTAMP '([^']+)'", statement)


def test_it_asks_for_the_span_since_the_last_run_up_to_ten_minutes_ago() -> None:
    service = Pretended({"orders": orders()})
    batches = poll(source_of(service, maximum_bytes_billed="1GB"), place(2))
    [asked] = service.asked("CHANGES(TABLE `shop`.`orders`")
    since, until = (iso(at) for at in (NOW - 2 * HOUR, NOW - HOUR // 6))
    assert span_of(asked.statement) == [_sql(since), _sql(until)]
    assert "PARTITION BY `id`" in asked.statement
    assert asked.config["query"]["maximumBytesBilled"] == str(10**9)
    assert asked.config["labels"] == {"application": "cartridge-warp"}
    assert _upto(batches[-1]) == until


def _sql(at: str) -> str:
    """An instant as the dialect writes it."""
    return re.sub(r"\.?0*$", "", at.replace("T", " ").removesuffix("Z")) + "+00"


def _upto(batch: ChangeBatch) -> str | None:
    found = re.search(r'"upto": "([^"]+)"', batch.end.token)
    return found[1] if found else None


def test_inserts_and_updates_are_rows_and_deletes_are_keys() -> None:
    service = Pretended({"orders": orders()})
    service.answers = [
        changes((1, "new", "INSERT", 11), (2, "changed", "UPDATE", 12), (3, "was", "DELETE", 13))
    ]
    assert events(poll(source_of(service), place(1))) == [
        (UPDATE, 11, 1, "new"),
        (UPDATE, 12, 2, "changed"),
        (DELETE, 13, 3, ABSENT),
    ]


def test_one_call_never_spans_more_than_a_day() -> None:
    service = Pretended({"orders": orders()})
    poll(source_of(service, history_delay=0), place(60))
    spans = [span_of(asked.statement) for asked in service.asked("CHANGES(")]
    assert [begin for begin, _ in spans[1:]] == [end for _, end in spans[:-1]]
    assert len(spans) == 3


def test_rows_that_are_only_added_are_asked_for_by_appends_and_at_once() -> None:
    service = Pretended({"orders": orders()}, [changes((1, "a", "INSERT", 11))])
    batches = poll(source_of(service, appended=["orders"]), place(1))
    [asked] = service.asked("APPENDS(TABLE `shop`.`orders`")
    assert span_of(asked.statement)[1] == _sql(iso(NOW))
    assert events(batches) == [(UPDATE, 11, 1, "a")]


def test_nothing_is_asked_before_ten_minutes_have_passed() -> None:
    service = Pretended({"orders": orders()})
    [batch] = poll(source_of(service), place(0.1))
    assert not service.asked()
    assert not batch.changes


@pytest.mark.holds(guarantee=6, source="bigquery", destination="pretended", fault="lost position")
def test_a_place_before_the_time_travel_is_lost_and_said() -> None:
    service = Pretended({"orders": orders()}, hours=48)
    with pytest.raises(PositionLost, match=r"resync SCHEMA.*max_time_travel_hours"):
        poll(source_of(service), place(49))
    assert not service.asked()


def test_without_that_look_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: what happened in an hour that is not remembered is never asked for."""
    monkeypatch.setattr(history, "_must_be_remembered", lambda *args: None)
    service = Pretended({"orders": orders()}, hours=48)
    poll(source_of(service), place(49))
    assert service.asked()


def test_the_configuration_may_say_how_far_back_the_time_travel_reaches() -> None:
    service = Pretended({"orders": orders()})
    with pytest.raises(PositionLost):
        poll(source_of(service, time_travel="1h"), place(2))


def test_a_table_that_was_made_again_since_is_lost_too() -> None:
    made = orders(creationTime=str((NOW - HOUR) // 1000))
    with pytest.raises(PositionLost, match="found one made at"):
        poll(source_of(Pretended({"orders": made})), place(2))


def test_what_the_service_says_of_a_time_too_far_back_is_a_lost_position() -> None:
    message = "Invalid time travel timestamp 1 for table p:shop.orders. Cannot read before 2."
    service = Pretended({"orders": orders()})
    service.answers = [Answer(r"CHANGES\(", error=(400, "invalidQuery", message))]
    with pytest.raises(PositionLost, match="Cannot read before 2"):
        poll(source_of(service), place(2))


def test_a_run_cut_short_goes_on_in_the_same_result_and_bills_nothing_again() -> None:
    rows = [(n, f"n{n}", "INSERT", n) for n in range(5)]
    service = Pretended({"orders": orders()}, [changes(*rows)])
    small = {"write_batch_size": 2}
    first = source_of(service, settings=small).poll(ORDERS, place(1), fire_time=5.0)
    cut = list(itertools.islice(first, 2))  # the query's name, then two rows
    rest = poll(source_of(service, settings=small), cut[-1].end)
    assert [event[2] for event in events(cut + rest)] == list(range(5))
    assert len(service.asked("CHANGES(")) == 1


def test_while_a_query_runs_there_are_empty_batches_that_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "_TELL_EVERY", 0.0)
    answer = changes((1, "a", "INSERT", 11))
    answer.looks = 4
    service = Pretended({"orders": orders()}, [answer])
    batches = poll(source_of(service), place(1))
    waited = list(itertools.takewhile(lambda batch: not batch.changes, batches))
    [name] = service.jobs
    assert len(waited) > 1
    assert all(name in batch.end.token for batch in waited)
    assert events(batches) == [(UPDATE, 11, 1, "a")]


def test_a_result_that_is_kept_no_more_is_asked_for_again() -> None:
    service = Pretended({"orders": orders()}, [changes((1, "a", "INSERT", 11))])
    [named, *_] = poll(source_of(service), place(1))
    service.jobs.clear()  # a day later
    assert events(poll(source_of(service), named.end)) == [(UPDATE, 11, 1, "a")]


def test_without_a_place_every_row_is_read_and_the_history_goes_on_from_there() -> None:
    service = Pretended({"orders": orders()})
    columns = [("id", "INTEGER"), ("name", "STRING")]
    service.answers = [Answer(r"FROM `shop`.`orders` FOR SYSTEM_TIME", columns, [[1, "a"]])]
    batches = poll(source_of(service), None)
    assert events(batches) == [(UPDATE, NOW, 1, "a"), (TRUNCATE, NOW - 1, ABSENT, ABSENT)]
    assert _upto(batches[-1]) == iso(NOW)
    service.now = NOW + HOUR
    poll(source_of(service), batches[-1].end)
    [asked] = service.asked("CHANGES(")
    assert span_of(asked.statement)[0] == _sql(iso(NOW))


def test_a_table_without_a_key_is_refused() -> None:
    service = Pretended({"orders": orders(tableConstraints={})})
    with pytest.raises(SourceRefused, match="name its columns with `keys`"):
        poll(source_of(service), place(1))
    assert not events(poll(source_of(service, keys={"orders": ["id"]}), place(1)))


def test_a_query_over_the_cap_says_what_to_do() -> None:
    message = "Query exceeded limit for bytes billed: 10. 20 or higher required."
    service = Pretended({"orders": orders()})
    service.answers = [Answer(r"CHANGES\(", error=(400, "bytesBilledLimitExceeded", message))]
    with pytest.raises(SourceRefused, match="raise `maximum_bytes_billed`"):
        poll(source_of(service, maximum_bytes_billed=10), place(2))


def test_a_service_that_is_not_there_now_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warp.sources.bigquery.server.RETRY", None)
    service = Pretended({"orders": orders()})
    service.answers = [Answer(r"CHANGES\(", error=(503, "backendError", "try later"))]
    with pytest.raises(SourceUnavailable, match="try later"):
        poll(source_of(service), place(2))
