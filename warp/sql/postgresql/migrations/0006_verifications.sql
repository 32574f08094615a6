-- What was compared with the source, when, and what was found to differ.

-- One row for each unit of the last passes over each table.
create table {meta}.verifications (
    unit text primary key,
    schema_name text not null,
    source_namespace text not null,
    source_table text not null,
    pass bigint not null,
    planned_at timestamptz not null default clock_timestamp(),
    -- what differs is handed to the table's replay unit at once
    repairs boolean not null default false,
    -- null until it was compared
    checked_at timestamptz,
    rows bigint not null default 0,
    -- what the destination should have, see docs/digest.md
    digest text not null default '',
    looks integer not null default 0,
    -- rows in quarantine, or that wait for others; and keys that changed at every look
    aside bigint not null default 0,
    unsettled bigint not null default 0,
    position text,
    position_seconds double precision not null default 0
);
create index verifications_of_table
    on {meta}.verifications (schema_name, source_namespace, source_table, pass);

-- Rows of the destination that are not as they should be.  Their values stay where they are.
create table {meta}.differences (
    id bigint generated always as identity primary key,
    unit text not null,
    schema_name text not null,
    source_namespace text not null,
    source_table text not null,
    pass bigint not null,
    found_at timestamptz not null default clock_timestamp(),
    key text not null,
    kinds jsonb not null,
    -- missing, extra, differs, duplicate
    sort text not null,
    columns jsonb not null default '[]',
    -- of the destination's row
    version bigint,
    -- open, repairing, repaired, gone
    state text not null default 'open',
    decided_at timestamptz
);
create index differences_of_table
    on {meta}.differences (schema_name, source_namespace, source_table, pass);
-- By hash, since a key may be longer than a page.
create index differences_undecided on {meta}.differences using hash (key)
    where state in ('open', 'repairing');
