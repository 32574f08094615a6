INSERT INTO {errands} (id, name, arguments, status, result, added_at)
SELECT {id}, {name}, {arguments}, 'open', '', CURRENT_TIMESTAMP()
FROM (SELECT 1 AS one)
WHERE NOT EXISTS (SELECT 1 FROM {errands} WHERE id = {id})
