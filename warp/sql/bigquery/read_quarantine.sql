-- What was set aside and is chosen, in the order it came; its state is the last decision about it.
-- Rows of a chunk that was read again were set aside again: those before are forgotten.
SELECT q.id, q.schema_name, q.unit, q.source_namespace, q.source_table, q.key, q.operation,
    IF({whole}, q.row, '') AS row_text, q.reason, q.code, q.position, q.position_seconds,
    q.version, q.kinds, q.partial, q.column_name, IFNULL(d.state, 'waiting') AS state, q.noted_at,
    IFNULL(t.tries, 0) AS tries, t.tried_at, IFNULL(d.error, '') AS last_error
FROM {quarantine} AS q
LEFT JOIN (
    SELECT id, state, error FROM {decisions} WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY noted_at DESC) = 1
) AS d ON d.id = q.id
LEFT JOIN (
    SELECT id, COUNT(*) AS tries, MAX(noted_at) AS tried_at FROM {decisions} WHERE tried GROUP BY id
) AS t ON t.id = q.id
WHERE IFNULL(d.state, 'waiting') <> 'forgotten' AND {conditions}
ORDER BY {order}
