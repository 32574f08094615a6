"""python dlt_snapshot.py KIND SOURCE DATABASE TABLE DESTINATION DATASET, in dlt's environment."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from telling import ready

os.environ.update(RUNTIME__LOG_LEVEL="ERROR", DATA_WRITER__BUFFER_MAX_ITEMS="20000")

import dlt

AT_ONCE = 50_000


def documents(url: str, database: str, table: str) -> Iterator[list[dict[str, Any]]]:
    import pymongo

    some: list[dict[str, Any]] = []
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        for found in client[database][table].find({}, batch_size=10_000):
            found["amount"] = str(found["amount"])
            found["created_at"] = found["created_at"].replace(tzinfo=UTC)
            some.append(found)
            if len(some) == AT_ONCE:
                yield some
                some = []
    yield some


def main() -> None:
    kind, source, database, table, destination, dataset = sys.argv[1:]
    if kind == "mongodb":
        made = dlt.resource(documents(source, database, table), name=table)
    else:
        from dlt.sources.sql_database import sql_table

        made = sql_table(source, table=table, backend="pyarrow", chunk_size=AT_ONCE)
    made.max_table_nesting = 0  # the nested field stays one column
    pipeline = dlt.pipeline(
        "side_by_side", destination=dlt.destinations.postgres(destination), dataset_name=dataset
    )
    ready()
    pipeline.run(made, write_disposition="replace")


if __name__ == "__main__":
    main()
