-- A chunk that was not finished is read again from its beginning, and what it set aside would come
-- twice.  What a person has decided about stays.
delete from {meta}.quarantine where unit = %(unit)s and state = 'waiting'
