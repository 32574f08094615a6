-- A run of this unit that never ended, because its worker was killed.
INSERT INTO {runs} (run, noted_at, unit, schema_name, source_namespace, source_table, worker, fence,
    status, row_count, error, slot)
SELECT run, CURRENT_TIMESTAMP(), unit, schema_name, source_namespace, source_table, owner, fence,
    'abandoned', 0, '', NULL
FROM {group}
WHERE unit = {unit} AND run IS NOT NULL AND run <> {run}
