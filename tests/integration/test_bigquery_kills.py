"""Guarantees 2 and 7 at BigQuery: real processes are killed and paused over their writes.

Where each is left by an error, and the twins of the single guards, are in test_bigquery_fence.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import programs
import pytest
from bigquery_writer import BATCHES, Order, all_rows
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer

from warp import faults
from warp.own_process import Running, wait_until
from warp.testing.contracts import ORDERS, select

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.soak]

LIMIT = 600.0  # seconds for what takes ten; this machine may be busy
FENCE_AND_BATCH = (" AND fence = {fence}", " AND batch = {batch} - 1")


class Trial:
    """Writers of one warehouse, and what they said."""

    def __init__(self, server: BigQueryServer, warehouse: Warehouse, log: Path) -> None:
        self.server = server
        self.warehouse = warehouse
        self.log = log

    @contextlib.contextmanager
    def writer(
        self, fence: int, fault: str = "", without: tuple[str, ...] = ()
    ) -> Iterator[Running]:
        order = Order(self.server.url, self.server.project, self.warehouse.mark, fence, without)
        environment = os.environ | {faults.VARIABLE: fault}
        process = programs.start("bigquery_writer", order.text(), env=environment, stderr=self.log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def finish(self) -> None:
        """A successor writes what is left."""
        with self.writer(2_000_000) as successor:
            assert successor.wait(LIMIT) == 0, self.log.read_text()

    def is_complete(self) -> None:
        found = {(row["id"], row["name"]) for row in self.warehouse.rows(ORDERS)}
        assert found == all_rows()
        batches = range(1, BATCHES + 1)
        keys = sorted(json.loads(row["key"])["id"] for row in self.warehouse.metadata("quarantine"))
        assert keys == [900 + batch for batch in batches]
        audit = self.warehouse.metadata("deletion_audit")
        deleted = sorted(json.loads(row["key"])["id"] for row in audit)
        assert deleted == [batch * 10 - 8 for batch in batches if batch > 1]


@pytest.fixture(scope="module")
def shared(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        warehouse.destination(select).metadata().prepare()
        yield warehouse


@pytest.fixture
def trial(bigquery_server: BigQueryServer, shared: Warehouse, tmp_path: Path) -> Iterator[Trial]:
    yield Trial(bigquery_server, shared, tmp_path / "writers.log")
    shared.empty()


@pytest.mark.holds(guarantee=(1, 7), source="none", destination="bigquery", fault="kill -9")
@pytest.mark.parametrize("point", ["after_copy", "before_commit", "after_send", "after_commit"])
def test_a_process_killed_anywhere_in_a_write_loses_and_repeats_nothing(
    trial: Trial, point: str
) -> None:
    # Registering, adopting and making the table are transactions of the same session.
    passed = 7 if point == "after_send" else 2
    with trial.writer(1_000_000, f"{point}:kill:{passed}") as killed:
        assert killed.wait(LIMIT) == -signal.SIGKILL, trial.log.read_text()
    with pytest.raises(AssertionError):
        trial.is_complete()
    trial.finish()
    trial.is_complete()


def a_paused_writer_wakes_up_when_its_successor_is_done(
    trial: Trial, without: tuple[str, ...] = ()
) -> None:
    with trial.writer(1_000_000, "before_commit:stop:2", without) as paused:
        assert wait_until(lambda: _stopped(paused.pid), LIMIT), trial.log.read_text()
        trial.finish()
        os.kill(paused.pid, signal.SIGCONT)
        paused.wait(LIMIT)


@pytest.mark.holds(guarantee=2, source="none", destination="bigquery", fault="SIGSTOP")
def test_a_paused_writer_that_was_superseded_writes_nothing(trial: Trial) -> None:
    a_paused_writer_wakes_up_when_its_successor_is_done(trial)
    assert "FenceBehind" in trial.log.read_text()
    trial.is_complete()


def test_without_fence_and_batch_number_a_paused_writer_writes(trial: Trial) -> None:
    a_paused_writer_wakes_up_when_its_successor_is_done(trial, FENCE_AND_BATCH)
    assert "FenceBehind" not in trial.log.read_text()
    with pytest.raises(AssertionError):
        trial.is_complete()


def _stopped(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"
