-- Whether queue and function are of this definition, and how many of the triggers fire.
select
    exists (select from pg_class c where c.oid = to_regclass({queue})
        and obj_description(c.oid, 'pg_class') = {definition}),
    (select count(*) from pg_trigger g join pg_proc f on f.oid = g.tgfoid
        where g.tgrelid = to_regclass({table}) and g.tgenabled in ('O', 'A')
            and g.tgname = any(array[{names}])
            and f.proname = {function} and f.pronamespace = to_regnamespace({schema}))
