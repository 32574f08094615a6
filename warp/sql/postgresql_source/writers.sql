-- Who may have written to this table (or its partitions) and has not ended: a transaction keeps its
-- lock until it is visible to all.  `waiting` is false for one that is certainly not committing
-- now: it is idle between two statements, or prepared while nobody commits a prepared one.
-- It is true all the same where it may have written before the table was published, since the log
-- will not say so; and where this role may not see what others do.
WITH parts AS (
  SELECT %(oid)s::oid AS oid
  UNION
  SELECT t.relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid::regclass) AS t
),
member AS (
  SELECT r.xmin FROM pg_catalog.pg_publication_rel AS r
  JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
  WHERE p.pubname = %(publication)s AND r.prrelid = %(oid)s::oid
  UNION ALL
  SELECT r.xmin FROM pg_catalog.pg_publication_namespace AS r
  JOIN pg_catalog.pg_publication AS p ON p.oid = r.pnpubid
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = r.pnnspid
  WHERE p.pubname = %(publication)s AND c.oid = %(oid)s::oid
  UNION ALL
  SELECT p.xmin FROM pg_catalog.pg_publication AS p
  WHERE p.pubname = %(publication)s AND p.puballtables
),
writers AS (
  SELECT
    l.virtualtransaction,
    l.pid,
    CASE WHEN l.pid IS NULL THEN (
      SELECT x.transactionid FROM pg_catalog.pg_locks AS x
      WHERE x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.pid IS NULL
        AND x.virtualtransaction = l.virtualtransaction
      ORDER BY pg_catalog.age(x.transactionid) DESC
      LIMIT 1
    ) ELSE a.backend_xid END AS xid,
    a.state
  FROM pg_catalog.pg_locks AS l
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
  WHERE l.locktype = 'relation' AND l.granted
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
    AND l.relation IN (SELECT oid FROM parts)
    AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
)
SELECT DISTINCT
  w.virtualtransaction,
  w.pid,
  coalesce(w.state, CASE WHEN w.pid IS NULL THEN 'prepared' ELSE 'unknown' END),
  CASE
    WHEN w.xid IS NOT NULL AND EXISTS (
      SELECT FROM member AS m WHERE pg_catalog.age(w.xid) >= pg_catalog.age(m.xmin)
    ) THEN true
    WHEN w.pid IS NULL THEN EXISTS (
      SELECT FROM pg_catalog.pg_stat_activity AS b
      WHERE b.backend_type = 'client backend' AND b.pid <> pg_catalog.pg_backend_pid()
        AND (b.state IS NULL OR (b.state <> 'idle' AND b.query ~* 'commit\s+prepared'))
    )
    ELSE w.state IS DISTINCT FROM 'idle in transaction'
      AND w.state IS DISTINCT FROM 'idle in transaction (aborted)'
  END AS waiting
FROM writers AS w
