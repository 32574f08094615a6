-- What one unit found.
update {meta}.verifications
set checked_at = clock_timestamp(), rows = %(rows)s, digest = %(digest)s, looks = %(looks)s,
    aside = %(aside)s, unsettled = %(unsettled)s, position = %(position)s,
    position_seconds = %(position_seconds)s
where unit = %(unit)s
