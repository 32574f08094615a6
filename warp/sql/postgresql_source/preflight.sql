-- What the server and the role are, in one look.
SELECT
  current_setting('server_version_num')::int AS version,
  pg_catalog.pg_is_in_recovery() AS standby,
  current_setting('wal_level') AS wal_level,
  current_setting('max_replication_slots')::int AS slots,
  (SELECT count(*)::int FROM pg_catalog.pg_replication_slots) AS slots_used,
  current_setting('max_wal_senders')::int AS senders,
  (SELECT count(*)::int FROM pg_catalog.pg_stat_replication) AS senders_used,
  current_setting('max_slot_wal_keep_size') AS kept,
  r.rolname::text AS role,
  r.rolreplication OR r.rolsuper AS replication,
  pg_catalog.has_database_privilege(current_database(), 'CREATE') AS creates,
  current_database()::text AS database,
  pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_others
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
