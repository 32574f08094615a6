-- GTIDs with tags (GTID_TAGGED), among ones without.
CREATE TABLE t (id INT PRIMARY KEY);
SET gtid_next = 'AUTOMATIC:nightly';
INSERT INTO t VALUES (1);
SET gtid_next = 'AUTOMATIC';
INSERT INTO t VALUES (2);
SET gtid_next = 'AUTOMATIC:nightly';
INSERT INTO t VALUES (3);
SET gtid_next = 'AUTOMATIC:x_1';
INSERT INTO t VALUES (4);
SET gtid_next = 'AUTOMATIC';
