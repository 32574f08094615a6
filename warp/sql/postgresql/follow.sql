-- What a stream carries from now on.  The fence grows: whoever follows the log with another
-- configuration must adopt the unit anew, and then sees that it is not theirs.
update {meta}.sync_markers
set spec = jsonb_build_object('follows', %(follows)s::text), fence = fence + 1,
    updated_at = clock_timestamp()
where unit = %(unit)s and kind = 'stream' and spec ->> 'follows' is distinct from %(follows)s
