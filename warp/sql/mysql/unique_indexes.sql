-- The primary key first.  A functional index has no column name, a prefix index a SUB_PART.
SELECT INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART
FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0
ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX
