-- One errand, or those that are open before the latest of the others.
select id, name, arguments, status, result, extract(epoch from added_at)::float8
from {meta}.errands
where %(id)s::text is null or id = %(id)s
order by ended_at is not null, added_at desc, id
limit 100
