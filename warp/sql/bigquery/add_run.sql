INSERT INTO {runs} (run, noted_at, unit, schema_name, source_namespace, source_table, worker, fence,
    status, row_count, error, slot)
VALUES ({run}, CURRENT_TIMESTAMP(), {unit}, {schema}, {namespace}, {table}, {worker}, {fence},
    {status}, {rows}, {error}, NULL)
