-- What a stream carries from now on.  The fence grows: whoever follows the log with another
-- configuration must adopt the unit anew, and then sees that it is not theirs.
update {meta}.sync_markers
set follows = %(follows)s, fence = fence + 1, updated_at = sysdate(6)
where unit = %(unit)s and kind = 'stream' and not follows <=> %(follows)s
