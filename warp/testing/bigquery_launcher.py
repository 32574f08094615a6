"""Starts local-bigquery, which pretends to be BigQuery, without the network and with one mend.

Run by the emulator's own Python, never imported by ours:

    python bigquery_launcher.py install                     once, when the environment is built
    python bigquery_launcher.py serve --port … --data-dir …

DuckDB fetches the extensions that local-bigquery needs from the network; here they come from
wheels.  And a MERGE of local-bigquery begins a transaction of its own, which DuckDB 1.5 answers by
aborting the one around it, so that no MERGE worked inside BEGIN TRANSACTION.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import duckdb


def install() -> None:
    """Put the extensions where DuckDB looks for them: below HOME."""
    from duckdb_extensions import import_extension

    for extension in ("icu", "ducklake", "spatial"):
        import_extension(extension)


def _in_transaction(cursor: Any) -> bool:
    """now() is the start of the transaction, so it stands still only inside of one."""

    def now() -> Any:
        return cursor.execute("SELECT epoch_us(now())").fetchone()

    first = now()
    time.sleep(0.002)
    return bool(first == now())


class _Cursor:
    """Refuses a nested BEGIN before DuckDB sees it, with the error that local-bigquery expects."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, statement: Any, *parameters: Any) -> Any:
        if statement == "BEGIN" and _in_transaction(self._cursor):
            raise duckdb.TransactionException("already in a transaction")
        return self._cursor.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def serve() -> None:
    from local_bigquery.cli import main
    from local_bigquery.jobs import merge

    run = merge.run
    merge.run = lambda cursor, tree, context: run(_Cursor(cursor), tree, context)
    main()


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    else:
        serve()
