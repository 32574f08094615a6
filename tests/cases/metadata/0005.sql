CREATE SCHEMA cartridge_warp_metadata;
CREATE FUNCTION cartridge_warp_metadata.schema_of(unit text, namespace text, table_name text) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $_$
    select case
        when pg_catalog.starts_with(unit, 'stream:') then pg_catalog.substr(unit, 8)
        when namespace is null then pg_catalog.regexp_replace(unit, '^[a-z]+:', '')
        else pg_catalog.left(
            pg_catalog.regexp_replace(
                pg_catalog.regexp_replace(unit, '^(chunk:.*):\d+:\d+$', '\1'), '^[a-z]+:', ''
            ),
            -2 - pg_catalog.length(namespace) - pg_catalog.length(table_name)
        )
    end
$_$;
CREATE TABLE cartridge_warp_metadata.deferred_rows (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    unit text NOT NULL,
    schema_name text NOT NULL,
    source_namespace text NOT NULL,
    source_table text NOT NULL,
    constraint_name text NOT NULL,
    parent_namespace text NOT NULL,
    parent_table text NOT NULL,
    waits_for text,
    reason text NOT NULL,
    code text NOT NULL,
    key text NOT NULL,
    operation text NOT NULL,
    "row" text NOT NULL,
    kinds jsonb NOT NULL,
    partial boolean DEFAULT false NOT NULL,
    version bigint NOT NULL,
    "position" text,
    position_seconds double precision DEFAULT 0 NOT NULL,
    tries integer DEFAULT 1 NOT NULL,
    tried_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE cartridge_warp_metadata.deferred_rows ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cartridge_warp_metadata.deferred_rows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE cartridge_warp_metadata.deletion_audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    unit text NOT NULL,
    source_namespace text NOT NULL,
    source_table text NOT NULL,
    reason text NOT NULL,
    version bigint NOT NULL,
    key jsonb,
    "row" jsonb,
    rows bigint DEFAULT 1 NOT NULL,
    "position" text,
    run text
);
ALTER TABLE cartridge_warp_metadata.deletion_audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cartridge_warp_metadata.deletion_audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE cartridge_warp_metadata.errands (
    id text NOT NULL,
    name text NOT NULL,
    arguments jsonb NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    result text DEFAULT ''::text NOT NULL,
    added_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone
);
CREATE TABLE cartridge_warp_metadata.error_log (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    code text NOT NULL,
    error_class text NOT NULL,
    message text NOT NULL,
    unit text DEFAULT ''::text NOT NULL,
    run text DEFAULT ''::text NOT NULL,
    source_namespace text,
    source_table text,
    column_name text DEFAULT ''::text NOT NULL,
    key text DEFAULT ''::text NOT NULL,
    "position" text,
    action text DEFAULT ''::text NOT NULL,
    finding text,
    cells bigint DEFAULT 1 NOT NULL,
    original_length integer,
    last_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    schema_name text
);
ALTER TABLE cartridge_warp_metadata.error_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cartridge_warp_metadata.error_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE cartridge_warp_metadata.quarantine (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    unit text NOT NULL,
    source_namespace text NOT NULL,
    source_table text NOT NULL,
    key text NOT NULL,
    operation text NOT NULL,
    "row" text NOT NULL,
    reason text NOT NULL,
    code text NOT NULL,
    "position" text,
    position_seconds double precision DEFAULT 0 NOT NULL,
    state text DEFAULT 'waiting'::text NOT NULL,
    decided_at timestamp with time zone,
    version bigint DEFAULT 0 NOT NULL,
    kinds jsonb DEFAULT '{}'::jsonb NOT NULL,
    partial boolean DEFAULT false NOT NULL,
    column_name text DEFAULT ''::text NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    tried_at timestamp with time zone,
    last_error text DEFAULT ''::text NOT NULL,
    schema_name text DEFAULT ''::text NOT NULL
);
ALTER TABLE cartridge_warp_metadata.quarantine ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cartridge_warp_metadata.quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE cartridge_warp_metadata.schema_registry (
    unit text NOT NULL,
    version integer NOT NULL,
    schema_name text NOT NULL,
    source_namespace text NOT NULL,
    source_table text NOT NULL,
    destination_namespace text NOT NULL,
    destination_table text NOT NULL,
    columns jsonb NOT NULL,
    key jsonb NOT NULL,
    change text NOT NULL,
    "position" text,
    unfilled text,
    registered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE cartridge_warp_metadata.schema_version (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE cartridge_warp_metadata.sync_markers (
    unit text NOT NULL,
    kind text NOT NULL,
    schema_name text NOT NULL,
    source_namespace text,
    source_table text,
    fence bigint DEFAULT 0 NOT NULL,
    owner text DEFAULT ''::text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    "position" text,
    position_seconds double precision DEFAULT 0 NOT NULL,
    position_at timestamp with time zone GENERATED ALWAYS AS (
CASE
    WHEN (position_seconds <> (0)::double precision) THEN to_timestamp(position_seconds)
    ELSE NULL::timestamp with time zone
END) STORED,
    batch bigint DEFAULT 0 NOT NULL,
    rows bigint DEFAULT 0 NOT NULL,
    phase text NOT NULL,
    schema_version integer DEFAULT 0 NOT NULL,
    truncated_at bigint DEFAULT '-1'::integer NOT NULL,
    sweep_below bigint DEFAULT '-1'::integer NOT NULL,
    spec jsonb,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    slot timestamp with time zone
)
WITH (fillfactor='50');
CREATE TABLE cartridge_warp_metadata.sync_runs (
    run text NOT NULL,
    unit text NOT NULL,
    schema_name text NOT NULL,
    source_namespace text,
    source_table text,
    worker text NOT NULL,
    fence bigint NOT NULL,
    status text DEFAULT 'running'::text NOT NULL,
    rows bigint DEFAULT 0 NOT NULL,
    error text DEFAULT ''::text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    slot timestamp with time zone
);
INSERT INTO cartridge_warp_metadata.deferred_rows OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:42.060087+00', 'stream:shop', 'shop', 'shop', 'lines', 'lines_order_fkey', 'shop', 'orders', NULL, 'no parent', 'WARP-520', '{"id": 3}', 'c', '{"id": 3}', '{"id": "int"}', false, 8, NULL, 0, 1, '2026-11-26 06:57:42.060088+00');
INSERT INTO cartridge_warp_metadata.deletion_audit OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:41.944231+00', 'stream:shop', 'shop', 'orders', 'deleted', 5, '{"_id": 9}', NULL, 1, NULL, NULL);
INSERT INTO cartridge_warp_metadata.errands VALUES ('e1', 'resync', '{"schema": "shop"}', 'open', '', '2026-11-26 06:57:41.944443+00', NULL);
INSERT INTO cartridge_warp_metadata.error_log OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:41.943587+00', 'WARP-510', 'Odd', 'did not fit', 'stream:shop', '', NULL, NULL, '', '', NULL, '', NULL, 1, NULL, '2026-11-26 06:57:41.983653+00', NULL);
INSERT INTO cartridge_warp_metadata.quarantine OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:41.943892+00', 'stream:shop', 'shop', 'orders', '{"_id": 1}', 'u', '{"_id": 1}', 'too long', 'WARP-511', 'p-3', 0, 'waiting', NULL, 0, '{}', false, '', 0, NULL, '', 'shop');
INSERT INTO cartridge_warp_metadata.quarantine OVERRIDING SYSTEM VALUE VALUES (2, '2026-11-26 06:57:41.94411+00', 'chunk:a:b:a.b:0:3', 'a', 'b', '{"_id": 2}', 'r', '{"_id": 2}', 'too long', 'WARP-511', 'p-4', 0, 'waiting', NULL, 0, '{}', false, '', 0, NULL, '', 'a:b');
INSERT INTO cartridge_warp_metadata.schema_registry VALUES ('table:shop:shop.orders', 1, 'shop', 'shop', 'orders', 'shop', 'orders', '[]', '["_id"]', 'create_table', 'p-1', NULL, '2026-11-26 06:57:41.942972+00');
INSERT INTO cartridge_warp_metadata.schema_version VALUES (1, 'metadata', '2026-11-26 06:57:41.932014+00');
INSERT INTO cartridge_warp_metadata.schema_version VALUES (2, 'values', '2026-11-26 06:57:42.054919+00');
INSERT INTO cartridge_warp_metadata.schema_version VALUES (3, 'replay', '2026-11-26 06:57:42.113831+00');
INSERT INTO cartridge_warp_metadata.schema_version VALUES (4, 'shared_stream', '2026-11-26 06:57:42.133662+00');
INSERT INTO cartridge_warp_metadata.schema_version VALUES (5, 'slots', '2026-11-26 06:57:42.151489+00');
INSERT INTO cartridge_warp_metadata.sync_markers VALUES ('stream:shop', 'stream', 'shop', NULL, NULL, 1764000000000001, 'host:1:ab', 0, 'p-42', 1764000000.25, DEFAULT, 42, 4200, 'streaming', 0, -1, -1, NULL, '2026-11-26 06:57:41.94237+00', NULL);
INSERT INTO cartridge_warp_metadata.sync_markers VALUES ('table:shop:shop.orders', 'table', 'shop', 'shop', 'orders', 0, '', 1, NULL, 0, DEFAULT, 0, 0, 'streaming', 2, -1, -1, NULL, '2026-11-26 06:57:41.942806+00', NULL);
INSERT INTO cartridge_warp_metadata.sync_markers VALUES ('poll:shop:shop.prices', 'poll', 'shop', 'shop', 'prices', 7, 'host:2:cd', 0, 'p-7', 1764000001.5, DEFAULT, 7, 70, 'idle', 1, -1, -1, NULL, '2026-11-26 06:57:41.942822+00', NULL);
INSERT INTO cartridge_warp_metadata.sync_runs VALUES ('r1', 'stream:shop', 'shop', NULL, NULL, 'host:1:ab', 1764000000000001, 'running', 0, '', '2026-11-26 06:57:41.943235+00', NULL, NULL);
SELECT pg_catalog.setval('cartridge_warp_metadata.deferred_rows_id_seq', 1, true);
SELECT pg_catalog.setval('cartridge_warp_metadata.deletion_audit_id_seq', 1, true);
SELECT pg_catalog.setval('cartridge_warp_metadata.error_log_id_seq', 1, true);
SELECT pg_catalog.setval('cartridge_warp_metadata.quarantine_id_seq', 2, true);
ALTER TABLE ONLY cartridge_warp_metadata.deferred_rows
    ADD CONSTRAINT deferred_rows_pkey PRIMARY KEY (id);
ALTER TABLE ONLY cartridge_warp_metadata.deferred_rows
    ADD CONSTRAINT deferred_rows_schema_name_source_namespace_source_table_key_key UNIQUE (schema_name, source_namespace, source_table, key);
ALTER TABLE ONLY cartridge_warp_metadata.deletion_audit
    ADD CONSTRAINT deletion_audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY cartridge_warp_metadata.errands
    ADD CONSTRAINT errands_pkey PRIMARY KEY (id);
ALTER TABLE ONLY cartridge_warp_metadata.error_log
    ADD CONSTRAINT error_log_pkey PRIMARY KEY (id);
ALTER TABLE ONLY cartridge_warp_metadata.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (id);
ALTER TABLE ONLY cartridge_warp_metadata.schema_registry
    ADD CONSTRAINT schema_registry_pkey PRIMARY KEY (unit, version);
ALTER TABLE ONLY cartridge_warp_metadata.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);
ALTER TABLE ONLY cartridge_warp_metadata.sync_markers
    ADD CONSTRAINT sync_markers_pkey PRIMARY KEY (unit);
ALTER TABLE ONLY cartridge_warp_metadata.sync_runs
    ADD CONSTRAINT sync_runs_pkey PRIMARY KEY (run);
CREATE INDEX deferred_rows_by_parent ON cartridge_warp_metadata.deferred_rows USING btree (parent_namespace, parent_table, waits_for);
CREATE INDEX deferred_rows_by_try ON cartridge_warp_metadata.deferred_rows USING btree (schema_name, tried_at);
CREATE INDEX deletion_audit_by_version ON cartridge_warp_metadata.deletion_audit USING btree (source_namespace, source_table, version);
CREATE INDEX error_log_by_time ON cartridge_warp_metadata.error_log USING btree (last_at);
CREATE UNIQUE INDEX error_log_finding ON cartridge_warp_metadata.error_log USING btree (finding) WHERE (finding IS NOT NULL);
CREATE INDEX quarantine_by_time ON cartridge_warp_metadata.quarantine USING btree (at);
CREATE INDEX quarantine_undecided ON cartridge_warp_metadata.quarantine USING btree (source_namespace, source_table, version) WHERE (state = ANY (ARRAY['waiting'::text, 'replaying'::text]));
CREATE INDEX quarantine_undecided_key ON cartridge_warp_metadata.quarantine USING hash (key) WHERE (state = ANY (ARRAY['waiting'::text, 'replaying'::text]));
CREATE INDEX quarantine_waiting ON cartridge_warp_metadata.quarantine USING btree (source_namespace, source_table) WHERE (state = 'waiting'::text);
CREATE INDEX sync_markers_of_table ON cartridge_warp_metadata.sync_markers USING btree (schema_name, source_namespace, source_table, kind);
CREATE INDEX sync_runs_open ON cartridge_warp_metadata.sync_runs USING btree (unit) WHERE (ended_at IS NULL);
CREATE UNIQUE INDEX sync_runs_slot ON cartridge_warp_metadata.sync_runs USING btree (unit, slot) WHERE ((slot IS NOT NULL) AND (status = 'done'::text));
