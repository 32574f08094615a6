-- Slots of this plugin and database that nobody follows: each holds the log for as long as it is.
SELECT
  s.slot_name::text,
  pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), s.restart_lsn)::bigint
FROM pg_catalog.pg_replication_slots AS s
WHERE s.plugin = 'pgoutput' AND s.database = current_database() AND NOT s.active
  AND s.slot_name ~ '^cartridge'
ORDER BY 1
