-- The truth that outlives Redis and every process.  {meta} is the metadata schema.
-- Times are timestamptz for people; what a program must read back exactly is kept beside them.

-- One row per unit of work, and one of kind 'table' per table (its snapshot state).
-- fillfactor: the row is rewritten by every transaction and should stay on its page.
create table {meta}.sync_markers (
    unit text primary key,
    kind text not null,
    schema_name text not null,
    source_namespace text,
    source_table text,
    fence bigint not null default 0,
    owner text not null default '',
    epoch bigint not null default 0,
    position text,
    position_seconds double precision not null default 0,
    position_at timestamptz generated always as
        (case when position_seconds <> 0 then to_timestamp(position_seconds) end) stored,
    batch bigint not null default 0,
    rows bigint not null default 0,
    phase text not null,
    schema_version integer not null default 0,
    truncated_at bigint not null default -1,
    sweep_below bigint not null default -1,
    spec jsonb,
    updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
create index sync_markers_of_table
    on {meta}.sync_markers (schema_name, source_namespace, source_table, kind);

-- Every version of every destination table, with the position it took force at.
create table {meta}.schema_registry (
    unit text not null,
    version integer not null,
    schema_name text not null,
    source_namespace text not null,
    source_table text not null,
    destination_namespace text not null,
    destination_table text not null,
    columns jsonb not null,
    key jsonb not null,
    change text not null,
    position text,
    -- a new column whose values still lie in _extra; set to null once they have been moved
    unfilled text,
    registered_at timestamptz not null default clock_timestamp(),
    primary key (unit, version)
);

create table {meta}.sync_runs (
    run text primary key,
    unit text not null,
    schema_name text not null,
    source_namespace text,
    source_table text,
    worker text not null,
    fence bigint not null,
    status text not null default 'running',
    rows bigint not null default 0,
    error text not null default '',
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
);
create index sync_runs_open on {meta}.sync_runs (unit) where ended_at is null;

create table {meta}.error_log (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    code text not null,
    error_class text not null,
    message text not null,
    unit text not null default '',
    run text not null default '',
    source_namespace text,
    source_table text,
    column_name text not null default '',
    key text not null default '',
    position text,
    action text not null default ''
);

-- Rows set aside whole.  Text, not jsonb: an original may hold what jsonb refuses.
create table {meta}.quarantine (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    unit text not null,
    source_namespace text not null,
    source_table text not null,
    key text not null,
    operation text not null,
    row text not null,
    reason text not null,
    code text not null,
    position text,
    position_seconds double precision not null default 0,
    state text not null default 'waiting',
    decided_at timestamptz
);
create index quarantine_waiting
    on {meta}.quarantine (source_namespace, source_table) where state = 'waiting';

-- What was deleted, with the last values the destination had; a truncation is one line.
create table {meta}.deletion_audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    unit text not null,
    source_namespace text not null,
    source_table text not null,
    reason text not null,
    version bigint not null,
    key jsonb,
    row jsonb,
    rows bigint not null default 1
);

create table {meta}.errands (
    id text primary key,
    name text not null,
    arguments jsonb not null,
    status text not null default 'open',
    result text not null default '',
    added_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
);
