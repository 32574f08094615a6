-- The server's clock, then the transactions that may still commit rows stamped before it.
--
-- `statement_timestamp` is from before the look at the sessions: a transaction that begins between
-- the two begins after it.  A session without an xid counts: it may write only now, with a
-- timestamp of its beginning (`now()`).  A standby shows none of the primary's sessions; what it
-- has not replayed yet is not to be seen, whatever the time.
select
    (extract(epoch from case when pg_is_in_recovery()
        then least(statement_timestamp(), coalesce(pg_last_xact_replay_timestamp(), 'epoch'))
        else statement_timestamp() end) * 1000000)::bigint,
    (select (extract(epoch from min(s.xact_start)) * 1000000)::bigint from pg_stat_activity s
        where s.datname = current_database() and s.pid <> pg_backend_pid()
            and s.backend_type not in ('walsender', 'autovacuum worker')),
    (select s.pid from pg_stat_activity s
        where s.datname = current_database() and s.pid <> pg_backend_pid()
            and s.backend_type not in ('walsender', 'autovacuum worker')
            and s.xact_start is not null
        order by s.xact_start limit 1),
    (select p.gid from pg_prepared_xacts p where p.database = current_database()
        order by p.prepared limit 1),
    exists (select from pg_stat_activity s
        where s.datname = current_database() and s.query = '<insufficient privilege>'),
    pg_is_in_recovery(),
    current_user::text
