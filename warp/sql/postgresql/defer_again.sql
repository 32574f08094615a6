-- Tried, and refused again, maybe for the sake of another row than before.  A second counts as one
-- try, however often somebody wrote what it might have waited for.
update {meta}.deferred_rows
set tries = tries + (tried_at < clock_timestamp() - interval '1s')::int,
    tried_at = case when tried_at < clock_timestamp() - interval '1s' then clock_timestamp()
        else tried_at end,
    constraint_name = %(constraint)s, parent_namespace = %(parent_namespace)s,
    parent_table = %(parent_table)s, waits_for = %(waits_for)s, reason = %(reason)s,
    code = %(code)s
where id = %(id)s
