-- Statements that change what a table is, with hostile names.
CREATE TABLE `we``ird "näme" %s` (`cö\l ``x``` INT PRIMARY KEY, `select` VARCHAR(10));
INSERT INTO `we``ird "näme" %s` VALUES (1, 'one');
/* a comment */ ALTER TABLE `we``ird "näme" %s` ADD COLUMN more INT -- the end
;
RENAME TABLE `we``ird "näme" %s` TO plain;
INSERT INTO plain VALUES (2, 'two', 3);
TRUNCATE TABLE plain;
INSERT INTO plain VALUES (3, 'three', 3);
CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20));
INSERT INTO parts VALUES (1), (11);
ALTER TABLE parts TRUNCATE PARTITION p0;
CREATE TABLE copied SELECT * FROM plain;
DROP TABLE IF EXISTS copied, parts;
