-- A complete run ends in the transaction of its last marker, and its slot is taken with it.
INSERT INTO {runs} (run, noted_at, unit, schema_name, source_namespace, source_table, worker, fence,
    status, row_count, error, slot)
SELECT run, CURRENT_TIMESTAMP(), unit, schema_name, source_namespace, source_table, owner, fence,
    'done', row_count, '', run_slot
FROM {group}
WHERE unit = {unit} AND run IS NOT NULL
