-- The slot of this name; columns that only some versions have are read as JSON.
SELECT
  s.plugin::text,
  s.database::text,
  s.active_pid,
  s.wal_status,
  coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason', '') AS reason,
  s.confirmed_flush_lsn::text,
  s.safe_wal_size,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
    ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), s.restart_lsn)::bigint
  END AS retained,
  -- From PostgreSQL 17 on, and from 18 on there may be a limit to it.
  extract(epoch FROM pg_catalog.clock_timestamp()
    - (pg_catalog.to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 AS idle_for,
  extract(epoch FROM nullif(current_setting('idle_replication_slot_timeout', true), '0')
    ::interval)::float8 AS idle_at_most
FROM pg_catalog.pg_replication_slots AS s
WHERE s.slot_name = %(slot)s
