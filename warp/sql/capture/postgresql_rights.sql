-- Whether we may make triggers on the table, and a schema for the queues (or in one that is there).
select
    has_table_privilege(to_regclass({table}), 'TRIGGER'),
    case when to_regnamespace({schema}) is null
        then has_database_privilege(current_database(), 'CREATE')
        else has_schema_privilege(to_regnamespace({schema})::oid, 'CREATE') end,
    current_user::text, current_database()::text
