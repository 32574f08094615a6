-- Runs that their worker could not end: it was gone, or another had taken its unit.
select unit, schema_name, worker, fence, status, unix_timestamp(ended_at) + 0e0, error
from {meta}.sync_runs
where status in ('abandoned', 'lost')
    and ended_at >= now(6) - interval %(newer_than)s * 1e6 microsecond
order by ended_at desc
limit %(limit)s
