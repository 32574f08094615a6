-- Nobody opens a chunk of this table again, so no successor would find the run of a killed worker.
update {meta}.sync_runs r
join {meta}.sync_markers m on m.unit = r.unit
set r.status = 'abandoned', r.ended_at = sysdate(6)
where m.kind = 'chunk' and m.schema_name = %(schema)s and m.source_namespace = %(namespace)s
    and m.source_table = %(table)s and r.ended_at is null
