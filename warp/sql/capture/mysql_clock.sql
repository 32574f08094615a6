-- The server's clock, then for how many seconds the oldest transaction that has written rows, and
-- the oldest statement that may do so, has run: what either stamps is no older than that.
--
-- A transaction that has written nothing and runs nothing stamps what it writes from now on.
-- `trx_started` is told on the server's own wall clock, and `convert_tz` puts now on the same one;
-- the last column is by how much that clock was set back within a day, when it may mislead.
select
    timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)),
    (select max(timestampdiff(second, x.trx_started, convert_tz(utc_timestamp(), '+00:00', 'SYSTEM')))
        from information_schema.innodb_trx x
        where x.trx_mysql_thread_id <> connection_id()
            and (x.trx_rows_modified > 0 or x.trx_query is not null or x.trx_mysql_thread_id = 0)),
    (select max(p.time) from information_schema.processlist p
        where p.command in ('Query', 'Execute') and p.id <> connection_id()),
    (select group_concat(distinct x.trx_mysql_thread_id order by x.trx_started)
        from information_schema.innodb_trx x
        where x.trx_mysql_thread_id <> connection_id() and x.trx_rows_modified > 0),
    greatest(0,
        timestampdiff(second, utc_timestamp() - interval 1 day,
            convert_tz(utc_timestamp() - interval 1 day, '+00:00', 'SYSTEM'))
        - timestampdiff(second, utc_timestamp(), convert_tz(utc_timestamp(), '+00:00', 'SYSTEM')))
