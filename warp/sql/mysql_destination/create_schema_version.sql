-- Which migrations this metadata database has seen.
create table if not exists {meta}.schema_version (
    version int not null primary key,
    name varchar(255) not null,
    applied_at datetime(6) not null default current_timestamp(6)
) engine = InnoDB default character set utf8mb4 collate {collation}
