-- What is left in the schema of the queues.
select
    (select count(*) from pg_class c where c.relnamespace = to_regnamespace({schema}))
    + (select count(*) from pg_proc f where f.pronamespace = to_regnamespace({schema}))
