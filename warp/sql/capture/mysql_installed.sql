-- What is there of a table's queue and triggers.
select 'queue', t.table_comment from information_schema.tables t
where t.table_schema = {schema} and t.table_name = {queue}
union all
select t.trigger_name, t.action_statement from information_schema.triggers t
where t.trigger_schema = {database} and t.event_object_table = {table}
    and t.trigger_name in ({names})
