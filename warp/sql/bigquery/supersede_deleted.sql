-- In the transaction of a delete: what was set aside of its key before shall not land.
INSERT INTO {decisions} (id, noted_at, state, tried, error)
SELECT q.id, CURRENT_TIMESTAMP(), 'superseded', FALSE,
    CONCAT('the row was deleted at version ', CAST(MAX(s.v) AS STRING))
FROM {quarantine} AS q
JOIN {staging} AS s ON s.key = q.key
LEFT JOIN (
    SELECT id, state FROM {decisions} WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY noted_at DESC) = 1
) AS d ON d.id = q.id
WHERE s.o = 100 AND q.version <= s.v AND IFNULL(d.state, 'waiting') IN ('waiting', 'replaying')
    AND q.source_namespace = {namespace} AND q.source_table = {table}
    AND q.id NOT IN UNNEST({replayed})
GROUP BY q.id
