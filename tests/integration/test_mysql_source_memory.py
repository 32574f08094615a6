"""Guarantee 9: a transaction of any size goes through in bounded memory."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
from mysql_world import Selection, world_at

ROWS = 1_000_000
ALLOWED = 64 << 20  # beyond what is there before; seen: 3 MB


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.holds(guarantee=9, source="mariadb", destination="pretended", fault="large data")
def test_a_transaction_of_a_million_rows_needs_no_more_memory_than_a_batch(mariadb: Any) -> None:
    process = psutil.Process()
    with world_at(mariadb.url) as world:
        world.sql("CREATE TABLE t (id bigint PRIMARY KEY, a int, b varchar(50), c decimal(10, 2))")
        source = world.source(Selection(world.database, settings={"write_batch_size": 1000}))
        start = source.position()
        world.sql(
            f"INSERT INTO t SELECT seq, seq, CONCAT('name ', seq), seq / 7 FROM seq_1_to_{ROWS}"
        )
        before, most, rows = process.memory_info().rss, 0, 0
        for batch in source.get_changes(start, selection=source._selection, idle=1):
            rows += len(batch)
            most = max(most, process.memory_info().rss)
            if rows >= ROWS:
                break
        assert rows == ROWS
        assert most - before < ALLOWED
