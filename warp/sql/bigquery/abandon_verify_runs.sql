-- Nobody opens a unit of an earlier pass again, so no successor would find the run of a killed
-- worker.  Before the markers go.
INSERT INTO {runs} (run, noted_at, unit, schema_name, source_namespace, source_table, worker, fence,
    status, row_count, error, slot)
SELECT run, CURRENT_TIMESTAMP(), unit, schema_name, source_namespace, source_table, owner, fence,
    'abandoned', 0, '', NULL
FROM {group}
WHERE kind = 'verify' AND run IS NOT NULL
