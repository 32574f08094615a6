-- A run cut short before this takes nothing, and its slot is run again.
update {meta}.sync_markers set slot = %(slot)s where unit = %(unit)s
