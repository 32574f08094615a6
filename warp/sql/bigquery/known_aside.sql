-- Of these keys, the rows that wait in quarantine, and how far they have come.  Single cells do not
-- count: what the rest of such a row should be is known.
SELECT q.id, q.key, q.row AS row_text, IFNULL(d.state, 'waiting') AS state
FROM {quarantine} AS q
LEFT JOIN (
    SELECT id, state FROM {decisions} WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY noted_at DESC) = 1
) AS d ON d.id = q.id
WHERE q.source_namespace = {namespace} AND q.source_table = {table} AND q.schema_name = {schema}
    AND IFNULL(d.state, 'waiting') IN ('waiting', 'replaying') AND q.column_name = ''
    AND q.key IN UNNEST({keys})
ORDER BY q.id
