-- Nobody opens a unit of an earlier pass again, so no successor would find the run of a killed
-- worker.  After its marker is gone: the order in which a worker takes the two.
update {meta}.sync_runs set status = 'abandoned', ended_at = sysdate(6)
where unit like 'verify:%%' and ended_at is null and schema_name = %(schema)s
    and source_namespace = %(namespace)s and source_table = %(table)s
