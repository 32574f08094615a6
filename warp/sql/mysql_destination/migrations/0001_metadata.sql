-- The truth that outlives Redis and every process.  {meta} is the metadata database.
-- Nothing here is undone by a ROLLBACK, so each statement may be run again after a crash.
-- Texts compare by their bytes ({collation}): unit ids and keys that differ in case or in trailing
-- spaces are two.  Times are UTC, for people; what a program must read back exactly is a number.

-- One row per unit of work, and one of kind 'table' per table (its snapshot state).
create table if not exists {meta}.sync_markers (
    unit varchar(768) not null primary key,
    kind varchar(20) not null,
    schema_name varchar(255) not null,
    source_namespace varchar(255),
    source_table varchar(255),
    fence bigint not null default 0,
    owner varchar(255) not null default '',
    -- the connection of the write transaction under way: who reads uncommitted rows sees whom to end
    connection bigint unsigned not null default 0,
    epoch bigint not null default 0,
    position longtext,
    position_seconds double not null default 0,
    batch bigint not null default 0,
    `rows` bigint not null default 0,
    phase varchar(20) not null,
    schema_version int not null default 0,
    truncated_at bigint not null default -1,
    sweep_below bigint not null default -1,
    spec longtext,
    follows longtext,
    -- the slot of the last complete run, of polls
    slot double,
    updated_at datetime(6) not null default current_timestamp(6),
    key sync_markers_of_table (source_table(100), source_namespace(100), kind)
) engine = InnoDB default character set utf8mb4 collate {collation};

-- Every version of every destination table, with the position it took force at.
create table if not exists {meta}.schema_registry (
    unit varchar(760) not null,
    version int not null,
    schema_name varchar(255) not null,
    source_namespace varchar(255) not null,
    source_table varchar(255) not null,
    destination_namespace varchar(64) not null,
    destination_table varchar(64) not null,
    `columns` longtext not null,
    `key` longtext not null,
    `change` varchar(40) not null,
    position longtext,
    -- a new column whose values still lie in _extra; set to null once they have been moved
    unfilled varchar(64),
    registered_at datetime(6) not null default current_timestamp(6),
    primary key (unit, version)
) engine = InnoDB default character set utf8mb4 collate {collation};

create table if not exists {meta}.sync_runs (
    run varchar(255) not null primary key,
    unit varchar(768) not null,
    schema_name varchar(255) not null,
    source_namespace varchar(255),
    source_table varchar(255),
    worker varchar(255) not null,
    fence bigint not null,
    status varchar(20) not null default 'running',
    `rows` bigint not null default 0,
    error longtext not null,
    slot double,
    started_at datetime(6) not null default current_timestamp(6),
    ended_at datetime(6),
    key sync_runs_of_unit (unit(190), ended_at)
) engine = InnoDB default character set utf8mb4 collate {collation};

create table if not exists {meta}.error_log (
    id bigint not null auto_increment primary key,
    at datetime(6) not null default current_timestamp(6),
    last_at datetime(6) not null default current_timestamp(6),
    code varchar(64) not null,
    error_class varchar(64) not null,
    message longtext not null,
    schema_name varchar(255) not null,
    unit varchar(768) not null default '',
    run varchar(255) not null default '',
    source_namespace varchar(255),
    source_table varchar(255),
    column_name longtext not null,
    `key` longtext not null,
    position longtext,
    action longtext not null,
    -- names what happened to the cells of one column; one line counts all of them
    finding binary(32),
    cells bigint not null default 1,
    original_length int,
    unique key error_log_finding (finding),
    key error_log_by_time (last_at)
) engine = InnoDB default character set utf8mb4 collate {collation};

-- Rows set aside whole, ready to replay.
create table if not exists {meta}.quarantine (
    id bigint not null auto_increment primary key,
    at datetime(6) not null default current_timestamp(6),
    unit varchar(768) not null,
    schema_name varchar(255) not null,
    source_namespace varchar(255) not null,
    source_table varchar(255) not null,
    `key` longtext not null,
    operation char(1) not null,
    `row` longtext not null,
    reason longtext not null,
    code varchar(64) not null,
    version bigint not null default 0,
    kinds longtext not null,
    partial tinyint(1) not null default 0,
    column_name longtext not null,
    position longtext,
    position_seconds double not null default 0,
    state varchar(20) not null default 'waiting',
    decided_at datetime(6),
    tries int not null default 0,
    tried_at datetime(6),
    last_error longtext not null,
    key quarantine_of_key (source_table(100), source_namespace(100), state, `key`(300)),
    key quarantine_of_unit (unit(190)),
    key quarantine_by_time (at)
) engine = InnoDB default character set utf8mb4 collate {collation};

-- What was deleted, with the last values the destination had; a truncation is one line.
create table if not exists {meta}.deletion_audit (
    id bigint not null auto_increment primary key,
    at datetime(6) not null default current_timestamp(6),
    unit varchar(768) not null,
    position longtext,
    run varchar(255),
    source_namespace varchar(255) not null,
    source_table varchar(255) not null,
    reason varchar(20) not null,
    version bigint not null,
    `key` longtext,
    `row` longtext,
    `rows` bigint not null default 1,
    key deletion_audit_of_key (source_table(100), source_namespace(100), `key`(300)),
    key deletion_audit_by_version (source_table(100), source_namespace(100), version)
) engine = InnoDB default character set utf8mb4 collate {collation};

create table if not exists {meta}.errands (
    id varchar(255) not null primary key,
    name varchar(255) not null,
    arguments longtext not null,
    status varchar(20) not null default 'open',
    result longtext not null,
    added_at datetime(6) not null default current_timestamp(6),
    ended_at datetime(6)
) engine = InnoDB default character set utf8mb4 collate {collation};
