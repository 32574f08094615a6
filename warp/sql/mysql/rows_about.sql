-- About how many rows each table of a database has, as its storage engine estimates.
SELECT TABLE_NAME, TABLE_ROWS
FROM information_schema.TABLES
WHERE TABLE_SCHEMA = %s
