"""Does the comparison behind every published figure see what differs, and only that?"""

from __future__ import annotations

import psycopg
import pytest

from benchmarks.side_by_side.sameness import EXPECTED, Landing, compare, keep_expected
from benchmarks.side_by_side.shop import orders

ROWS = 50
WIDER = (
    f"create table landed as select id::numeric id, customer, qty::bigint qty,"
    f" amount::text amount, weight, created_at at time zone 'UTC' created_at,"
    f" paid::int::smallint paid, extra::text extra from {EXPECTED}"
)


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ("select 1", "0 differences"),
        ("delete from landed where id = 3", "49 rows of 50, `id` differs in 1 rows"),
        (
            "update landed set qty = case id when 1 then (select qty from landed where id = 2)"
            " else (select qty from landed where id = 1) end where id in (1, 2)",
            "`qty` differs in 2 rows",  # the same values in other rows
        ),
        ("update landed set customer = null where id = 7", "`customer` differs in 1 rows"),
        ("update landed set weight = weight * 1.0000000001", "`weight` differs in 49 rows"),
        (
            "update landed set created_at = created_at + interval '1 ms' where id = 9",
            "`created_at` differs in 1 rows",
        ),
        ("alter table landed drop paid", "could not be compared: column"),
    ],
)
def test_wider_types_are_equal_and_every_other_value_is_told(
    pg_database: str, spoiled: str, said: str
) -> None:
    expected = keep_expected(pg_database, orders(ROWS))
    with psycopg.connect(pg_database, autocommit=True) as connection:
        connection.execute("set timezone to 'UTC'")
        connection.execute(WIDER.encode())
        connection.execute(spoiled.encode())
    found = compare(pg_database, Landing("public", "landed"), expected, pg_database)
    assert str(found).startswith(said)
    assert found.equal == (said == "0 differences")
