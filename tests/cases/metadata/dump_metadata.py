"""Dumps the metadata schema as it was after its first N migrations, with a little in every table.

    python tests/cases/metadata/dump_metadata.py 5

Run it once, when a version is released: what is in the dump is what its users have.  Never run it
again for the same N, or it shows what the migrations say today.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from warp.sql import load, migrations  # noqa: E402
from warp.testing.servers import Postgres, postgres_program  # noqa: E402

META = "cartridge_warp_metadata"
# By the first version that has the table.
ROWS = {
    1: """
insert into {meta}.sync_markers
    (unit, kind, schema_name, source_namespace, source_table, fence, owner, epoch, position,
     position_seconds, batch, rows, phase, schema_version, spec)
values
    ('stream:shop', 'stream', 'shop', null, null, 1764000000000001, 'host:1:ab', 0, 'p-42',
     1764000000.25, 42, 4200, 'streaming', 0, null),
    ('table:shop:shop.orders', 'table', 'shop', 'shop', 'orders', 0, '', 1, null,
     0, 0, 0, 'streaming', 2, null),
    ('poll:shop:shop.prices', 'poll', 'shop', 'shop', 'prices', 7, 'host:2:cd', 0, 'p-7',
     1764000001.5, 7, 70, 'idle', 1, null);
insert into {meta}.schema_registry
    (unit, version, schema_name, source_namespace, source_table, destination_namespace,
     destination_table, columns, key, change, position)
values ('table:shop:shop.orders', 1, 'shop', 'shop', 'orders', 'shop', 'orders',
        '[]', '["_id"]', 'create_table', 'p-1');
insert into {meta}.sync_runs (run, unit, schema_name, worker, fence, status, rows)
values ('r1', 'stream:shop', 'shop', 'host:1:ab', 1764000000000001, 'running', 0);
insert into {meta}.error_log (code, error_class, message, unit)
values ('WARP-510', 'Odd', 'did not fit', 'stream:shop');
insert into {meta}.quarantine
    (unit, source_namespace, source_table, key, operation, row, reason, code, position)
values
    ('stream:shop', 'shop', 'orders', '{{"_id": 1}}', 'u', '{{"_id": 1}}', 'too long', 'WARP-511',
     'p-3'),
    ('chunk:a:b:a.b:0:3', 'a', 'b', '{{"_id": 2}}', 'r', '{{"_id": 2}}', 'too long', 'WARP-511',
     'p-4');
insert into {meta}.deletion_audit (unit, source_namespace, source_table, reason, version, key)
values ('stream:shop', 'shop', 'orders', 'deleted', 5, '{{"_id": 9}}');
insert into {meta}.errands (id, name, arguments) values ('e1', 'resync', '{{"schema": "shop"}}');
""",
    2: """
insert into {meta}.deferred_rows
    (unit, schema_name, source_namespace, source_table, constraint_name, parent_namespace,
     parent_table, reason, code, key, operation, row, kinds, version)
values ('stream:shop', 'shop', 'shop', 'lines', 'lines_order_fkey', 'shop', 'orders', 'no parent',
        'WARP-520', '{{"id": 3}}', 'c', '{{"id": 3}}', '{{"id": "int"}}', 8);
""",
}


def record(version: int) -> str:
    with Postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"create schema {META}")
            made = load("postgresql", "create_schema_version")
            connection.execute(made.format(meta=META).encode())
            for step in migrations("postgresql")[:version]:
                connection.execute(step.text.format(meta=META).encode())
                connection.execute(
                    f"insert into {META}.schema_version values (%s, %s)".encode(),
                    [step.version, step.name],
                )
                connection.execute(ROWS.get(step.version, "").format(meta=META).encode())
        dump = [str(postgres_program("pg_dump")), "--inserts", "--no-owner", "--schema", META]
        said = subprocess.run([*dump, server.url], check=True, capture_output=True, text=True)
    # What psql understands and a server does not, and what depends on the server's version.
    lines = [
        line
        for line in said.stdout.splitlines()
        if not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))
    ]
    return "\n".join(line for line in lines if line.strip()) + "\n"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("version", type=int)
    given = arguments.parse_args().version
    (Path(__file__).parent / f"{given:04}.sql").write_text(record(given))
