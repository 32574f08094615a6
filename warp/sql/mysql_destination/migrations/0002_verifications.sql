-- What was compared with the source, when, and what was found to differ; and a way to the runs that
-- were cut short, for which whoever watches the fleet asks once a second.

-- One row for each unit of the last passes over each table.
create table if not exists {meta}.verifications (
    unit varchar(768) not null primary key,
    schema_name varchar(255) not null,
    source_namespace varchar(255) not null,
    source_table varchar(255) not null,
    pass bigint not null,
    planned_at datetime(6) not null,
    -- what differs is handed to the table's replay unit at once
    repairs tinyint(1) not null default 0,
    -- null until it was compared
    checked_at datetime(6),
    `rows` bigint not null default 0,
    -- what the destination should have, see docs/digest.md
    digest varchar(80) not null default '',
    looks int not null default 0,
    -- rows in quarantine; and keys that changed at every look
    aside bigint not null default 0,
    unsettled bigint not null default 0,
    position longtext,
    position_seconds double not null default 0,
    key verifications_of_table (source_table(100), source_namespace(100), pass)
) engine = InnoDB default character set utf8mb4 collate {collation};

-- Rows of the destination that are not as they should be.  Their values stay where they are.
create table if not exists {meta}.differences (
    id bigint not null auto_increment primary key,
    unit varchar(768) not null,
    schema_name varchar(255) not null,
    source_namespace varchar(255) not null,
    source_table varchar(255) not null,
    pass bigint not null,
    found_at datetime(6) not null,
    `key` longtext not null,
    kinds longtext not null,
    -- missing, extra, differs, duplicate
    sort varchar(20) not null,
    `columns` longtext not null,
    -- of the destination's row
    version bigint,
    -- open, repairing, repaired, gone
    state varchar(20) not null default 'open',
    decided_at datetime(6),
    key differences_of_table (source_table(100), source_namespace(100), state, pass),
    key differences_of_key (source_table(100), source_namespace(100), `key`(300))
) engine = InnoDB default character set utf8mb4 collate {collation};

alter table {meta}.sync_runs add index sync_runs_cut_short (status, ended_at);
