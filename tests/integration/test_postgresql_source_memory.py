"""One transaction of any size takes no more memory than configuration allows (guarantee 9)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from postgresql_shop import Shop

READER = Path(__file__).with_name("postgresql_reader.py")


@pytest.mark.parametrize(
    ("rows", "streamed", "megabytes"),
    [
        (60_000, True, 40),
        pytest.param(1_000_000, True, 256, marks=pytest.mark.soak),
        pytest.param(1_000_000, False, 256, marks=pytest.mark.soak),
    ],
)
@pytest.mark.holds(guarantee=9, source="postgresql", destination="pretended", fault="large data")
def test_a_large_transaction_fits_whatever_its_size(
    capture_shop: Shop, rows: int, streamed: bool, megabytes: int
) -> None:
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id int primary key, name text)")
    shop.admin.execute("reset role")
    memory = "1MB" if streamed else "2GB"
    shop.run(f"alter role {shop.reader} set logical_decoding_work_mem = '{memory}'")
    source = shop.source()
    start = source.position()
    shop.run(
        "insert into shop.orders select n, repeat('x', 300) from generate_series(1, %s) n", (rows,)
    )
    said = subprocess.run(
        [
            *(sys.executable, READER, shop.reading_url, shop.slot, shop.publication),
            *(start.token, str(rows)),
        ],
        env={"PYTHONPATH": ":".join([str(READER.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    shop.run(f"alter role {shop.reader} reset logical_decoding_work_mem")
    seen, batches, versions, before, most = map(int, said)
    assert (seen, versions) == (rows, 1)
    assert batches >= rows // 500
    # The bare rows of the small one are 20 MB, of the large ones 330 MB.
    assert most < (megabytes if megabytes > 200 else before + megabytes)
