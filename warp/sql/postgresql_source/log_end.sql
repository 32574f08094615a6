-- Where the log ends, as far as it would survive the server, and which log that is; with the slot
-- and the publication, so that whoever asks where to start needs one question only.
-- What is flushed, not what is inserted: the rest may be gone after a crash, and other changes
-- stand in its place then.
SELECT
  pg_catalog.pg_is_in_recovery() AS standby,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
    ELSE pg_catalog.pg_current_wal_flush_lsn()::text END AS flushed,
  (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
    ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()) END AS segment,
  (
    SELECT p.oid::bigint FROM pg_catalog.pg_publication AS p WHERE p.pubname = %(publication)s
  ) AS publication,
  -- Every older transaction is over, and its end lies before `inserted`.
  mod(
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::numeric, 4294967296
  )::bigint AS horizon,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
    ELSE pg_catalog.pg_current_wal_insert_lsn()::text END AS inserted
