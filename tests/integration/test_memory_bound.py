"""Memory is bounded by configuration, not by table, transaction or document size (guarantee 9).

The worker runs under RLIMIT_DATA: the kernel refuses it more private writable memory than that,
so a bound that is not kept ends in a MemoryError, wherever it is.  Not RLIMIT_AS, which counts
libraries and address space that is only reserved (64 MB for each thread that allocates), nor a
cgroup, which needs rights that a test may not have.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fleet import Fleet, Servers, Worker, broken, servers

# Memory is one machine-wide thing too: not beside the fleets of the chaos tests.
pytestmark = [pytest.mark.xdist_group("fleet"), pytest.mark.timeout(600)]

MEGABYTE = 1 << 20
MOST = 300 * MEGABYTE  # resident, at any moment
# Data a process may have: what it uses, and a stack of 8 MB for each of some twenty threads.
LIMIT = 480 * MEGABYTE

LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))\n"
# Without the bound in bytes a snapshot's transaction holds `full_load_batch_size` rows of any size.
UNBOUNDED = LIMITED + (
    "import warp.sources.mongodb.snapshot as snapshot\nsnapshot._FULL_BYTES = 1 << 60\n"
)


@pytest.fixture(scope="module")
def large() -> Iterator[Servers]:
    with servers(members=1, cache=1.0) as ours:  # changes of 15 MB need room
        yield ours


@contextmanager
def one_worker(large: Servers, code: str, **settings: Any) -> Iterator[tuple[Fleet, Worker]]:
    with broken(code) as environment, Fleet(large, audited=False, **settings) as fleet:
        yield fleet, fleet.worker(environment, slots=8)


def fill(fleet: Fleet, rows: int, size: int) -> None:
    """A table of `rows` documents of about `size` bytes that no compression makes small."""
    noise = random.Random(1).randbytes(size)
    for start in range(0, rows, 2_000):
        fleet.source["large"].insert_many(
            [{"_id": n, "name": f"row {n}", "noise": noise} for n in range(start, start + 2_000)],
            ordered=False,
        )


@pytest.mark.holds(guarantee=9, source="mongodb", destination="postgresql", fault="large data")
def test_a_large_table_fits_through_a_small_worker(large: Servers) -> None:
    rows, size = 200_000, 1_800  # a row of 2,000 bytes and more is kept elsewhere, by PostgreSQL
    with one_worker(large, LIMITED) as (fleet, worker):
        fill(fleet, rows, size)
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled("large"), 300)
        assert fleet.count("large") == rows
        assert worker.peak_memory() < MOST


@pytest.mark.holds(guarantee=9, source="mongodb", destination="postgresql", fault="large data")
def test_a_transaction_of_100_000_events_fits_through_a_small_worker(large: Servers) -> None:
    events = 100_000
    with one_worker(large, LIMITED) as (fleet, worker):
        fleet.source["large"].insert_one({"_id": -1, "name": "first"})
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled("large"))
        with fleet.client.start_session() as session, session.start_transaction():
            for start in range(0, events, 5_000):
                fleet.source["large"].insert_many(
                    [{"_id": n, "name": f"row {n}"} for n in range(start, start + 5_000)],
                    session=session,
                )
        last = f'select from "{fleet.name}".large where _id = %s'
        fleet.wait_for("its last event to arrive", lambda: bool(fleet.ask(last, events - 1)))
        assert fleet.count("large") == events + 1
        assert worker.peak_memory() < MOST


@pytest.mark.holds(guarantee=9, source="mongodb", destination="postgresql", fault="large data")
def test_documents_of_15_megabytes_fit_through_a_small_worker(large: Servers) -> None:
    documents = 8
    with one_worker(large, LIMITED) as (fleet, worker):
        # Of 64 letters: PostgreSQL would try for seconds to compress one of 16.
        text = base64.b64encode(random.Random(1).randbytes(15 * MEGABYTE // 4 * 3)).decode()
        huge = fleet.source["huge"]
        for n in range(documents // 2):
            huge.insert_one({"_id": n, "name": "by the snapshot", "text": text})
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled("huge"))
        for n in range(documents // 2, documents):
            huge.insert_one({"_id": n, "name": "by the stream", "text": text})
        huge.update_many({}, {"$set": {"name": "again"}})
        arrived = (
            f'select count(*) from "{fleet.name}".huge where name = %s and octet_length(text) = %s'
        )
        fleet.wait_for(
            "every document to arrive",
            lambda: fleet.ask(arrived, "again", len(text)) == [(documents,)],
        )
        assert worker.peak_memory() < MOST


def test_without_the_bound_in_bytes_the_worker_runs_into_the_limit(large: Servers) -> None:
    """The broken twin: the limit is low enough to tell."""
    rows, size = 60_000, 8_000
    with one_worker(large, UNBOUNDED, full_load_batch_size=rows) as (fleet, worker):
        fill(fleet, rows, size)
        fleet.coordinator()
        fleet.wait_for("the worker to run out of memory", lambda: "MemoryError" in worker.log())
        assert not fleet.settled("large")
