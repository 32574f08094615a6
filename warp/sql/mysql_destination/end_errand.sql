-- An errand that is over stays as it ended.
update {meta}.errands
set status = %(status)s, result = %(result)s, ended_at = sysdate(6)
where id = %(id)s and ended_at is null
