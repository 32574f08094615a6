-- What a name is: a table, a view, a sequence.
SELECT TABLE_TYPE
FROM information_schema.TABLES
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
