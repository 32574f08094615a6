-- An operator's intent, before rq carries it.
insert into {meta}.errands (id, name, arguments, result)
values (%(id)s, %(name)s, %(arguments)s, '')
on duplicate key update id = id
