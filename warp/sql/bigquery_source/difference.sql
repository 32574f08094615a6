-- What is different between two times, of rows that have a key: as they are now, or gone.
--
-- A statement may name a table at one time only, so what was there before is set aside first, as
-- keys and hashes.  MD5 is of the row's JSON, in which no two different rows look alike.
CREATE TEMP TABLE _cw_before AS
SELECT {keys}, MD5(TO_JSON_STRING(STRUCT({columns}))) AS _cw_hash
FROM {table} FOR SYSTEM_TIME AS OF {before}
WHERE {keyed};

SELECT {selected}, n._cw_hash IS NULL AS _cw_gone
FROM (
  SELECT *, MD5(TO_JSON_STRING(STRUCT({columns}))) AS _cw_hash
  FROM {table} FOR SYSTEM_TIME AS OF {now}
  WHERE {keyed}
) AS n
FULL OUTER JOIN _cw_before AS b ON {joined}
WHERE n._cw_hash IS NULL OR b._cw_hash IS NULL OR n._cw_hash != b._cw_hash
