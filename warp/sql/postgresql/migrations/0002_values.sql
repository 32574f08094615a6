-- What was set aside can be landed again, rows wait for the rows they refer to, and what happened
-- to single cells is a line with a count.

-- Rows quarantined before this have no kinds: they are shown, and cannot be replayed.
alter table {meta}.quarantine
    add column version bigint not null default 0,
    add column kinds jsonb not null default '{{}}',
    add column partial boolean not null default false,
    -- the one cell that is meant, where the rest of the row landed
    add column column_name text not null default '',
    -- the last try to replay it, and why that failed
    add column tries integer not null default 0,
    add column tried_at timestamptz,
    add column last_error text not null default '';
create index quarantine_by_time on {meta}.quarantine (at);

-- `finding` names what happened to the cells of one column; one line counts all of them.
alter table {meta}.error_log
    add column finding text,
    add column cells bigint not null default 1,
    add column original_length integer,
    add column last_at timestamptz not null default clock_timestamp();
create unique index error_log_finding on {meta}.error_log (finding) where finding is not null;
create index error_log_by_time on {meta}.error_log (last_at);

-- Changes that were refused for another row's sake: its foreign key found no parent yet, its children
-- are still there, or another row still holds its unique value.  The newest change of each key.
create table {meta}.deferred_rows (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    unit text not null,
    schema_name text not null,
    source_namespace text not null,
    source_table text not null,
    -- what it waits for: the constraint that refused it, the destination's table whose rows must
    -- change first, and the parent's key where that is known
    constraint_name text not null,
    parent_namespace text not null,
    parent_table text not null,
    waits_for text,
    reason text not null,
    code text not null,
    key text not null,
    operation text not null,
    row text not null,
    kinds jsonb not null,
    partial boolean not null default false,
    version bigint not null,
    position text,
    position_seconds double precision not null default 0,
    tries integer not null default 1,
    tried_at timestamptz not null default clock_timestamp(),
    unique (schema_name, source_namespace, source_table, key)
);
create index deferred_rows_by_parent
    on {meta}.deferred_rows (parent_namespace, parent_table, waits_for);
create index deferred_rows_by_try on {meta}.deferred_rows (schema_name, tried_at);

-- Who deleted a row, and where in the source's log.
alter table {meta}.deletion_audit
    add column position text,
    add column run text;
