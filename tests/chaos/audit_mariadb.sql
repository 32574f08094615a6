-- What really happened in the destination, written by triggers inside the very transactions that
-- did it: neither a rolled back transaction nor a process that lies can get in here.  Triggers run
-- as who made them: whoever is judged has no right on what is written.

create database {audit} character set utf8mb4 collate utf8mb4_nopad_bin;

-- One order for all that is written here: of a transaction of a stream, its marker comes first.
-- Not auto_increment: its lock lasts to the end of a LOAD DATA, and would let writers wait for
-- each other who do not without an audit.
create sequence {audit}.n cache 1000;

-- Each change of a unit's marker.  `program` is the process that did it, by its number.  That rows
-- are versioned by transactions is what tells a trigger's row in which one it was written: `tx`.
create table {audit}.advances (
    n bigint not null primary key,
    at double not null,
    tx bigint unsigned generated always as row start,
    gone bigint unsigned generated always as row end,
    period for system_time (tx, gone),
    program varchar(64) not null,
    unit varchar(255) not null,
    old_position longtext,
    position longtext,
    old_batch bigint not null,
    batch bigint not null,
    old_fence bigint not null,
    fence bigint not null,
    moved tinyint(1) not null,
    -- False in the middle of a source's transaction, which after a crash is read from its start.
    onward tinyint(1) not null,
    key (unit, n),
    key (tx)
) engine = innodb with system versioning;

-- Each row inserted or updated in a table we write to.
create table {audit}.rows (
    n bigint not null primary key,
    at double not null,
    tx bigint unsigned generated always as row start,
    gone bigint unsigned generated always as row end,
    period for system_time (tx, gone),
    source varchar(64) not null,
    `key` varchar(400) not null,
    version bigint not null,
    deleted tinyint(1) not null,
    content longtext, -- of a row with a stamp
    key (source, `key`, n)
) engine = innodb with system versioning;

-- Each row that was deleted from one.
create table {audit}.deletions (
    n bigint not null primary key,
    at double not null,
    tx bigint unsigned generated always as row start,
    gone bigint unsigned generated always as row end,
    period for system_time (tx, gone),
    source varchar(64) not null,
    `key` varchar(400) not null
) engine = innodb with system versioning;

-- The markers, which are there once our metadata has been prepared.
create trigger {meta}.audited after update on {meta}.sync_markers for each row
begin
    if new.kind <> 'table' then
        -- Known to a connection from its first write on.
        if @audit_program is null then
            set @audit_program = (select attr_value from performance_schema.session_connect_attrs
                where processlist_id = connection_id() and attr_name = '_pid');
        end if;
        insert into {audit}.advances
            (n, at, program, unit, old_position, position, old_batch, batch, old_fence, fence,
             moved, onward)
        values (nextval({audit}.n), unix_timestamp(sysdate(6)), coalesce(@audit_program, ''),
            new.unit, old.position, new.position, old.batch, new.batch, old.fence, new.fence,
            old.batch <> new.batch or not old.position <=> new.position,
            not old.position <=> new.position);
    end if;
end
