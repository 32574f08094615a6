-- An operator's intent, before rq carries it.
insert into {meta}.errands (id, name, arguments) values (%(id)s, %(name)s, %(arguments)s)
on conflict (id) do nothing
