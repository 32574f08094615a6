-- One column for each character set, ENUM and SET in two of them.
CREATE TABLE charsets (
  id INT PRIMARY KEY, big5 VARCHAR(20) CHARACTER SET big5, dec8 VARCHAR(20) CHARACTER SET dec8,
  cp850 VARCHAR(20) CHARACTER SET cp850, hp8 VARCHAR(20) CHARACTER SET hp8,
  koi8r VARCHAR(20) CHARACTER SET koi8r, latin1 VARCHAR(20) CHARACTER SET latin1,
  latin2 CHAR(20) CHARACTER SET latin2, swe7 VARCHAR(20) CHARACTER SET swe7,
  ascii VARCHAR(20) CHARACTER SET ascii, ujis VARCHAR(20) CHARACTER SET ujis,
  sjis VARCHAR(20) CHARACTER SET sjis, hebrew VARCHAR(20) CHARACTER SET hebrew,
  tis620 VARCHAR(20) CHARACTER SET tis620, euckr VARCHAR(20) CHARACTER SET euckr,
  koi8u VARCHAR(20) CHARACTER SET koi8u, gb2312 VARCHAR(20) CHARACTER SET gb2312,
  greek VARCHAR(20) CHARACTER SET greek, cp1250 VARCHAR(20) CHARACTER SET cp1250,
  gbk VARCHAR(20) CHARACTER SET gbk, latin5 VARCHAR(20) CHARACTER SET latin5,
  armscii8 VARCHAR(20) CHARACTER SET armscii8, utf8mb3 VARCHAR(20) CHARACTER SET utf8mb3,
  ucs2 VARCHAR(20) CHARACTER SET ucs2, cp866 VARCHAR(20) CHARACTER SET cp866,
  keybcs2 VARCHAR(20) CHARACTER SET keybcs2, macce VARCHAR(20) CHARACTER SET macce,
  macroman VARCHAR(20) CHARACTER SET macroman, cp852 VARCHAR(20) CHARACTER SET cp852,
  latin7 VARCHAR(20) CHARACTER SET latin7, utf8mb4 TEXT CHARACTER SET utf8mb4,
  cp1251 VARCHAR(20) CHARACTER SET cp1251, utf16 VARCHAR(20) CHARACTER SET utf16,
  utf16le VARCHAR(20) CHARACTER SET utf16le, cp1256 VARCHAR(20) CHARACTER SET cp1256,
  cp1257 VARCHAR(20) CHARACTER SET cp1257, utf32 TEXT CHARACTER SET utf32,
  geostd8 VARCHAR(20) CHARACTER SET geostd8, cp932 VARCHAR(20) CHARACTER SET cp932,
  eucjpms VARCHAR(20) CHARACTER SET eucjpms, gb18030 VARCHAR(20) CHARACTER SET gb18030,
  enum1 ENUM('é','z') CHARACTER SET latin1, enum2 ENUM('ж','z') CHARACTER SET cp1251,
  set1 SET('é','z') CHARACTER SET utf16, names VARCHAR(20) COLLATE utf8mb4_0900_as_cs
);
INSERT INTO charsets VALUES (1, '中文', 'é', 'é½', 'é', 'Привет', 'é€ÿ', 'ő', 'Äö', 'plain', '日本', '日本ソ',
  'שלום', 'ไทย', '한글', 'Ґрунт', '中文', 'Ελλάδα', 'ő€', '中文', 'ğİ', 'Բար', 'é€中', 'é中', 'Привет', 'čď',
  'č', 'é', 'ő', 'ąž', '😀', 'Привет', '😀é', '😀é', 'مرحبا', 'ąž', '😀é', 'გამარჯობა', '日本①', '日本①', '😀中',
  'é', 'ж', 'é,z', 'Ünïcode');
INSERT INTO charsets (id, latin1, utf8mb4) VALUES (2, X'818D8F909D', CONCAT('nul', X'00', 'inside'));
