-- JSON of every shape the server stores: inlined and by offset, small and large, opaque.
CREATE TABLE documents (id INT PRIMARY KEY, j JSON);
INSERT INTO documents VALUES (1, '{}'), (2, '[]'), (3, 'null'), (4, 'true'), (5, 'false'), (6, NULL), (7, '""'), (8, '"text"'),
  (9, '0'), (10, '-1'), (11, '32767'), (12, '-32768'), (13, '32768'), (14, '65535'), (15, '65536'), (16, '2147483647'),
  (17, '-2147483648'), (18, '2147483648'), (19, '4294967296'), (20, '9223372036854775807'), (21, '-9223372036854775808'),
  (22, '18446744073709551615'), (23, '18446744073709551616'), (24, '1.5'), (25, '-0.0'), (26, '1e100'), (27, '1.7976931348623157e308'),
  (28, '5e-324'), (29, '0.1'), (30, '100.0'), (31, '1e15'), (32, '1e16'), (33, '123456789012345.6'), (34, '1e-5'), (35, '1e-4'), (36, '0.00012345'),
  (37, '123456789012345678.0'), (38, '1.0'), (39, '3.0e20'), (40, '-2.5e-7'), (41, '1e14'), (42, '123456789012345680000.0'), (43, '0.000001234567890123456'),
  (44, '12345.678901234567'), (45, '1e17'), (46, '99999999999999990000.0'), (47, '1e21'), (48, '1e22'), (49, '0.001'),
  (50, '{"a": [1, 65536, 9223372036854775808, -5, 1.25, "x", null, true, false, {"b": {"c": []}}], "": {}, "ü": "é😀"}'),
  (51, '"quote \\" slash \\\\ / tab \\t newline \\n return \\r form \\f back \\b control \\u0001 \\u001f del \\u007f nul \\u0000 end"'),
  (52, '{"b": 1, "a": 2, "cc": 3, "aaa": 4}'), (53, '{"z": 1, "z": 2}');
INSERT INTO documents VALUES
  (60, JSON_OBJECT('d', CAST('2024-02-29' AS DATE), 'dt', CAST('2024-02-29 12:34:56.789012' AS DATETIME(6)), 't', CAST('-01:02:03.5' AS TIME(1)), 'T', CAST('838:59:59' AS TIME))),
  (61, CAST(CAST(1234567890.123456789 AS DECIMAL(30,9)) AS JSON)), (62, JSON_ARRAY(CAST(-0.000001 AS DECIMAL(20,6)), CAST(5 AS DECIMAL(65,0)), CAST(-99999999999999999999.99 AS DECIMAL(22,2)))),
  (63, JSON_OBJECT('b', X'00FF10', 'c', CAST('abc' AS BINARY), 'bit', b'101', 'e', CAST(X'' AS BINARY))),
  (64, CAST(TIMESTAMP('2024-06-30 12:00:00') AS JSON)), (65, CAST(ST_GeomFromText('POINT(1 2)') AS JSON)), (66, JSON_ARRAY(CAST(2024 AS YEAR), 1 = 1, 1.10, 1e0)),
  (67, JSON_QUOTE('plain')), (68, CAST(UNHEX(REPEAT('AB', 100)) AS JSON));
INSERT INTO documents SELECT 70, JSON_ARRAYAGG(n) FROM (WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r WHERE n < 900) SELECT IF(n % 3, n * 100000, CONCAT('text number ', n, REPEAT('x', n % 200))) AS n FROM r) q;
INSERT INTO documents SELECT 71, JSON_OBJECTAGG(CONCAT('key ', n), n * 70000) FROM (WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r WHERE n < 999) SELECT n FROM r) q;
INSERT INTO documents VALUES (72, JSON_OBJECT('long', REPEAT('y', 70000), 'i', 70000, 's', 5)), (73, JSON_ARRAY(REPEAT('z', 200), REPEAT('w', 20000)));
UPDATE documents SET j = JSON_SET(j, '$.a[0]', 'changed') WHERE id = 50;
