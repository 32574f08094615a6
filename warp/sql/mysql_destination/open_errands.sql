-- What operators asked for and nobody has finished, oldest first.
select id, name, arguments from {meta}.errands where ended_at is null order by added_at, id
