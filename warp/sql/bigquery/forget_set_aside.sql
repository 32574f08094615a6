-- A chunk that was not finished is read again from its beginning, and what it set aside would come
-- twice.  What a person has decided about stays.
INSERT INTO {decisions} (id, noted_at, state, tried, error)
SELECT q.id, CURRENT_TIMESTAMP(), 'forgotten', FALSE, ''
FROM {quarantine} AS q
LEFT JOIN {decisions} AS d ON d.id = q.id
WHERE q.unit = {unit} AND d.id IS NULL
