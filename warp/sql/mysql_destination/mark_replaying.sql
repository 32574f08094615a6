-- A person wants these rows landed.  Those kept without their kinds cannot be read exactly.
update {meta}.quarantine
set state = 'replaying', decided_at = sysdate(6)
where id in %(ids)s and state = 'waiting' and kinds <> '{}'
    and source_namespace = %(namespace)s and source_table = %(table)s
    and schema_name = %(schema)s
