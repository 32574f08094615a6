INSERT INTO {versions} (version, noted_at)
SELECT {version}, CURRENT_TIMESTAMP()
FROM (SELECT 1 AS one)
WHERE NOT EXISTS (SELECT 1 FROM {versions} WHERE version = {version})
