"""What the emulator would let pass and BigQuery would not."""

from __future__ import annotations

import pytest

from warp.destinations.bigquery import books, markers, staged
from warp.destinations.bigquery.merge import DELETED, VERSION

# https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical#reserved_keywords
WORDS = """
ALL AND ANY ARRAY AS ASC ASSERT_ROWS_MODIFIED AT BETWEEN BY CASE CAST COLLATE CONTAINS CREATE
CROSS CUBE CURRENT DEFAULT DEFINE DESC DISTINCT ELSE END ENUM ESCAPE EXCEPT EXCLUDE EXISTS
EXTRACT FALSE FETCH FOLLOWING FOR FROM FULL GROUP GROUPING GROUPS HASH HAVING IF IGNORE IN
INNER INTERSECT INTERVAL INTO IS JOIN LATERAL LEFT LIKE LIMIT LOOKUP MERGE NATURAL NEW NO NOT
NULL NULLS OF ON OR ORDER OUTER OVER PARTITION PRECEDING PROTO QUALIFY RANGE RECURSIVE RESPECT
RIGHT ROLLUP ROWS SELECT SET SOME STRUCT TABLESAMPLE THEN TO TREAT TRUE UNBOUNDED UNION UNNEST
USING WHEN WHERE WINDOW WITH WITHIN
"""
RESERVED = frozenset(WORDS.split())
TABLES = {**books.TABLES, "markers": markers.COLUMNS, "staging": staged.BESIDE}


@pytest.mark.parametrize("table", TABLES)
def test_no_column_of_ours_is_a_word_that_bigquery_keeps(table: str) -> None:
    assert not {name.upper() for name, _ in TABLES[table]} & RESERVED
    assert not {VERSION.upper(), DELETED.upper()} & RESERVED
