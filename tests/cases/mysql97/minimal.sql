-- Partial row images.
CREATE TABLE minimal (id INT PRIMARY KEY, a VARCHAR(20) DEFAULT 'dflt', b INT, t TEXT, n INT NULL);
INSERT INTO minimal VALUES (1, 'a1', 1, 't1', NULL), (2, 'a2', 2, 't2', 5), (3, 'a3', 3, 't3', 6);
SET SESSION binlog_row_image = MINIMAL;
UPDATE minimal SET b = 10 WHERE id = 1;
UPDATE minimal SET id = 20, n = NULL WHERE id = 2;
DELETE FROM minimal WHERE id = 3;
INSERT INTO minimal (id, b) VALUES (4, 4);
SET SESSION binlog_row_image = NOBLOB;
UPDATE minimal SET b = 11 WHERE id = 1;
UPDATE minimal SET t = 'T1' WHERE id = 1;
SET SESSION binlog_row_image = FULL;
