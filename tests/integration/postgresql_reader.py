"""A process that follows a log and says how much memory it took.  Run by the test of that bound.

python postgresql_reader.py CONNINFO SLOT PUBLICATION POSITION ROWS
"""

from __future__ import annotations

import resource
import sys
from dataclasses import replace

from postgresql_shop import everything

from warp.model import Position, TableId, TableSettings
from warp.sources.postgresql import PostgresSource, PostgresSourceOptions


def select(table: TableId) -> TableSettings | None:
    settings = everything(table)
    return settings and replace(settings, write_batch_size=500)


def main(conninfo: str, slot: str, publication: str, position: str, rows: str) -> None:
    options = {"connection_string": conninfo, "slot": slot, "publication": publication}
    source = PostgresSource(PostgresSourceOptions.model_validate(options), select)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen, batches = 0, 0
    versions: set[int] = set()
    for batch in source.get_changes(Position(position), selection=select, idle=1.0):
        seen += len(batch)
        batches += bool(len(batch))
        versions.update(v for part in batch.changes for v in part.versions)
        if seen >= int(rows):
            break
    source.close()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = (seen, batches, len(versions), before // 1024, most // 1024)
    sys.stdout.write(" ".join(map(str, said)))


if __name__ == "__main__":
    main(*sys.argv[1:])
