-- The last change of each key in a span of time whose end is not part of it.
--
-- An update comes as two rows of one time, the old one as a DELETE; a key that was deleted and
-- inserted in one transaction likewise.  So of one time what is there counts before what went.
SELECT {columns}, _CHANGE_TYPE AS _cw_type, UNIX_MICROS(_CHANGE_TIMESTAMP) AS _cw_at
FROM {function}(TABLE {table}, {since}, {until})
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY {keys} ORDER BY _CHANGE_TIMESTAMP DESC, IF(_CHANGE_TYPE = 'DELETE', 1, 0)
) = 1
