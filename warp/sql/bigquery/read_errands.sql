-- The open ones, then the newest others.
SELECT id, name, arguments, status, result, added_at
FROM {errands}
WHERE {id} IS NULL OR id = {id}
ORDER BY status <> 'open', added_at DESC
LIMIT 100
