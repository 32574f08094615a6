-- Which of these tables had a column added, renamed or retyped by a transaction that was not over
-- at the marker: the catalog's own rows know by whom they were written last.  A table that was made
-- since is not among them: its columns are as old as the row of its `ctid`, which never changes.
-- A row that was written two billion transactions ago looks as if from the future.
SELECT DISTINCT a.attrelid::bigint
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_attribute AS own ON own.attrelid = a.attrelid AND own.attname = 'ctid'
WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
  AND pg_catalog.age(a.xmin) BETWEEN 0 AND pg_catalog.age(%(horizon)s::text::xid)
  AND a.xmin::text <> own.xmin::text
