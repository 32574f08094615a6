-- One errand, or those that are open before the latest of the others.
select id, name, arguments, status, result, unix_timestamp(added_at) + 0e0
from {meta}.errands
where %(id)s is null or id = %(id)s
order by ended_at is not null, added_at desc, id
limit 100
