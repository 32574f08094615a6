-- gtid_mode = OFF
-- Without global ids: every transaction is an anonymous one.
CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20));
CREATE TABLE gone (id INT PRIMARY KEY);
INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO gone VALUES (1), (2);
BEGIN;
UPDATE a SET v = 'changed' WHERE id = 2;
INSERT INTO gone VALUES (3);
DELETE FROM a WHERE id = 3;
COMMIT;
SET SESSION binlog_transaction_compression = ON;
INSERT INTO a VALUES (4, REPEAT('z', 20)), (5, REPEAT('z', 20));
SET SESSION binlog_transaction_compression = OFF;
ALTER TABLE a ADD COLUMN n INT;
TRUNCATE TABLE gone;
XA START 'held';
INSERT INTO a VALUES (6, 'held', 6);
XA END 'held';
XA PREPARE 'held';
INSERT INTO a VALUES (7, 'between', 7);
XA COMMIT 'held';
INSERT INTO gone VALUES (4);
UPDATE a SET id = 8 WHERE id = 1;
