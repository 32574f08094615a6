-- Who uses a table.
select array_agg(distinct l.pid order by l.pid) from pg_locks l
where l.relation = to_regclass({table}) and l.granted and l.pid <> pg_backend_pid()
