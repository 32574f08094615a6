-- Runs that their worker could not end: it was gone, or another had taken its unit.
select unit, schema_name, worker, fence, status, extract(epoch from ended_at)::float8, error
from {meta}.sync_runs
where status in ('abandoned', 'lost')
    and ended_at >= clock_timestamp() - make_interval(secs => %(newer_than)s)
order by ended_at desc
limit %(limit)s
