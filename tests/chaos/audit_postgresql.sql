-- What really happened in the destination, written by triggers inside the very transactions that
-- did it: neither a rolled back transaction nor a process that lies can get in here.  The functions
-- run as who owns them: whoever is judged has no right on what is written.

create schema audit;

-- One order for all that is written here: of a transaction of a stream, its marker comes first.
create sequence audit.n;

-- Each change of a unit's marker.  `program` is who did it, as the harness named the process.
create table audit.advances (
    n bigint primary key default nextval('audit.n'),
    at double precision not null default extract(epoch from clock_timestamp()),
    tx bigint not null default pg_current_xact_id()::text::bigint,
    program text not null default coalesce(current_setting('audit.program', true), ''),
    unit text not null,
    old_position text,
    position text,
    old_batch bigint not null,
    batch bigint not null,
    old_fence bigint not null,
    fence bigint not null,
    moved boolean not null,
    -- False in the middle of a source's transaction, which after a crash is read from its start.
    onward boolean not null
);
create index on audit.advances (unit, n);
create index on audit.advances (tx);

-- Each row inserted or updated in a table we write to.
create table audit.rows (
    n bigint primary key default nextval('audit.n'),
    at double precision not null default extract(epoch from clock_timestamp()),
    tx bigint not null default pg_current_xact_id()::text::bigint,
    source text not null,
    key text not null,
    version bigint not null,
    deleted boolean not null,
    content jsonb -- of a row with a stamp
);

-- Each row that was deleted from one.
create table audit.deletions (
    n bigint primary key default nextval('audit.n'),
    at double precision not null default extract(epoch from clock_timestamp()),
    tx bigint not null default pg_current_xact_id()::text::bigint,
    source text not null,
    key text not null
);

create function audit.advanced() returns trigger language plpgsql security definer as $$
begin
    insert into audit.advances
        (unit, old_position, position, old_batch, batch, old_fence, fence, moved, onward)
    values (new.unit, old.position, new.position, old.batch, new.batch, old.fence, new.fence,
        old.batch <> new.batch or old.position is distinct from new.position,
        old.position is distinct from new.position);
    return null;
end $$;

-- The triggers' arguments are the columns of the key.
create function audit.key_of(whole jsonb, names text[]) returns text language sql immutable as $$
    select string_agg(whole ->> k.name, '/' order by k.n)
    from unnest(names) with ordinality as k (name, n)
$$;

create function audit.changed() returns trigger language plpgsql security definer as $$
begin
    insert into audit.rows (source, key, version, deleted, content)
    select tg_table_name, audit.key_of(whole, tg_argv), r._cw_version, r._cw_deleted,
        case when whole ? 'stamp' then
            jsonb_build_array(whole -> 'stamp', whole -> 'total', whole -> 'name') end
    from touched as r cross join lateral to_jsonb(r) as whole;
    return null;
end $$;

create function audit.deleted() returns trigger language plpgsql security definer as $$
begin
    insert into audit.deletions (source, key)
    select tg_table_name, audit.key_of(to_jsonb(r), tg_argv) from touched as r;
    return null;
end $$;

-- Tables come to be while the fleet runs; each is watched from its first row.
create function audit.watch() returns event_trigger language plpgsql security definer as $$
declare
    made record;
begin
    for made in
        select c.oid::regclass::text as name, n.nspname, c.relname,
            (select string_agg(quote_literal(a.attname), ', ' order by k.n)
                from pg_catalog.pg_index i
                cross join unnest(i.indkey::smallint[]) with ordinality as k (attnum, n)
                join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                where i.indrelid = c.oid and i.indisprimary) as key
        from pg_event_trigger_ddl_commands() d
        join pg_catalog.pg_class c on c.oid = d.objid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where d.classid = 'pg_catalog.pg_class'::regclass and c.relkind = 'r'
            and n.nspname not like 'pg\_%' and n.nspname <> 'audit'
    loop
        if made.relname = 'sync_markers' then
            execute format('create trigger audited after update on %s for each row'
                ' when (new.kind <> ''table'') execute function audit.advanced()', made.name);
        elsif made.nspname <> 'cartridge_warp_metadata' then
            execute format('create trigger inserted after insert on %s'
                ' referencing new table as touched execute function audit.changed(%s)',
                made.name, made.key);
            execute format('create trigger updated after update on %s'
                ' referencing new table as touched execute function audit.changed(%s)',
                made.name, made.key);
            execute format('create trigger deleted after delete on %s'
                ' referencing old table as touched execute function audit.deleted(%s)',
                made.name, made.key);
        end if;
    end loop;
end $$;

create event trigger watch on ddl_command_end when tag in ('CREATE TABLE')
    execute function audit.watch();
