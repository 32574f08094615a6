-- A run of a scheduled table belongs to a slot of its schedule, and a slot is run to its end once.

alter table {meta}.sync_runs
    add column slot timestamptz;
create unique index sync_runs_slot on {meta}.sync_runs (unit, slot)
    where slot is not null and status = 'done';

-- The slot of the last such run, of polls.
alter table {meta}.sync_markers
    add column slot timestamptz;
