-- Foreign keys by which a change of another table changes rows of this one, which runs no trigger.
select constraint_name from information_schema.referential_constraints
where constraint_schema = {database} and table_name = {table}
    and (delete_rule in ('CASCADE', 'SET NULL') or update_rule in ('CASCADE', 'SET NULL'))
order by constraint_name
