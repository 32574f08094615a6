-- Transactions that have written something, the oldest first.  A role without pg_read_all_stats
-- sees the pids of others, and not since when.
SELECT a.pid, a.backend_xid::text, extract(epoch FROM now() - a.xact_start)::float8
FROM pg_catalog.pg_stat_activity AS a
WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
UNION ALL
SELECT NULL, p.gid, extract(epoch FROM now() - p.prepared)::float8
FROM pg_catalog.pg_prepared_xacts AS p
ORDER BY 3 DESC NULLS LAST
