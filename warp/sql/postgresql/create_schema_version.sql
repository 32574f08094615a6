-- Which migrations this metadata schema has seen.
create table if not exists {meta}.schema_version (
    version integer primary key,
    name text not null,
    applied_at timestamptz not null default clock_timestamp()
)
