SELECT q.source_namespace, q.source_table, COUNT(*) AS waiting
FROM {quarantine} AS q
LEFT JOIN (
    SELECT id, state FROM {decisions} WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY noted_at DESC) = 1
) AS d ON d.id = q.id
WHERE IFNULL(d.state, 'waiting') = 'waiting'
GROUP BY q.source_namespace, q.source_table
