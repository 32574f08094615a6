-- What a look at the server asks, in one row; every user may ask it.
select
    current_setting('server_version_num')::int as version,
    current_setting('server_encoding') as encoding,
    pg_is_in_recovery() as standby,
    current_setting('default_transaction_read_only')::bool as read_only,
    has_database_privilege(current_database(), 'CREATE') as may_create,
    has_database_privilege(current_database(), 'TEMPORARY') as may_stage,
    current_database() as database,
    current_user as user,
    (select setting::int from pg_settings where name = 'max_connections')
        - (select coalesce(sum(setting::int), 0) from pg_settings
           where name in ('superuser_reserved_connections', 'reserved_connections'))
        - (select coalesce(sum(numbackends), 0) from pg_stat_database) as connections_left,
    (select rolconnlimit from pg_roles where rolname = current_user) as role_limit,
    current_setting('fsync')::bool and current_setting('full_page_writes')::bool as survives,
    array(
        select name::text from pg_settings
        where name in ('idle_session_timeout', 'transaction_timeout') and setting <> '0'
        order by name
    ) as cut_by
