-- The pass is over: what earlier ones found and this one did not is gone, or was repaired.
INSERT INTO {difference_decisions} (id, noted_at, state)
SELECT f.id, CURRENT_TIMESTAMP(), IF(f.state = 'repairing', 'repaired', 'gone')
FROM {undecided} AS f
WHERE f.schema_name = {schema} AND f.source_namespace = {namespace} AND f.source_table = {table}
    AND f.pass < {number}
