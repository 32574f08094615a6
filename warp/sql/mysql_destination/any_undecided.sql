-- Has a table rows in quarantine that may still land?
select 1 from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying')
limit 1
