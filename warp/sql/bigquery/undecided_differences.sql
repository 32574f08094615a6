-- Differences that are open, or about to be repaired, with that state; a part of other statements.
SELECT d.*, IFNULL(s.state, 'open') AS state
FROM {differences} AS d
LEFT JOIN (
    SELECT id, state FROM {difference_decisions} WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY noted_at DESC) = 1
) AS s ON s.id = d.id
WHERE IFNULL(s.state, 'open') IN ('open', 'repairing')
