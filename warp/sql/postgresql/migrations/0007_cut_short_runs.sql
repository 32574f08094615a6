-- Whoever watches the fleet asks once a second for the runs that were cut short, which are few.
create index sync_runs_cut_short on {meta}.sync_runs (ended_at)
    where status in ('abandoned', 'lost');
