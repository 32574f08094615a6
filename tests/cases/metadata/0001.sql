CREATE SCHEMA cartridge_warp_metadata;
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
    rows bigint DEFAULT 1 NOT NULL
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
    action text DEFAULT ''::text NOT NULL
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
    decided_at timestamp with time zone
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
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
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
    ended_at timestamp with time zone
);
INSERT INTO cartridge_warp_metadata.deletion_audit OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:25.406365+00', 'stream:shop', 'shop', 'orders', 'deleted', 5, '{"_id": 9}', NULL, 1);
INSERT INTO cartridge_warp_metadata.errands VALUES ('e1', 'resync', '{"schema": "shop"}', 'open', '', '2026-11-26 06:57:25.406597+00', NULL);
INSERT INTO cartridge_warp_metadata.error_log OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:25.405637+00', 'WARP-510', 'Odd', 'did not fit', 'stream:shop', '', NULL, NULL, '', '', NULL, '');
INSERT INTO cartridge_warp_metadata.quarantine OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 06:57:25.405948+00', 'stream:shop', 'shop', 'orders', '{"_id": 1}', 'u', '{"_id": 1}', 'too long', 'WARP-511', 'p-3', 0, 'waiting', NULL);
INSERT INTO cartridge_warp_metadata.quarantine OVERRIDING SYSTEM VALUE VALUES (2, '2026-11-26 06:57:25.406231+00', 'chunk:a:b:a.b:0:3', 'a', 'b', '{"_id": 2}', 'r', '{"_id": 2}', 'too long', 'WARP-511', 'p-4', 0, 'waiting', NULL);
INSERT INTO cartridge_warp_metadata.schema_registry VALUES ('table:shop:shop.orders', 1, 'shop', 'shop', 'orders', 'shop', 'orders', '[]', '["_id"]', 'create_table', 'p-1', NULL, '2026-11-26 06:57:25.396413+00');
INSERT INTO cartridge_warp_metadata.schema_version VALUES (1, 'metadata', '2026-11-26 06:57:25.380236+00');
INSERT INTO cartridge_warp_metadata.sync_markers VALUES ('stream:shop', 'stream', 'shop', NULL, NULL, 1764000000000001, 'host:1:ab', 0, 'p-42', 1764000000.25, DEFAULT, 42, 4200, 'streaming', 0, -1, -1, NULL, '2026-11-26 06:57:25.395751+00');
INSERT INTO cartridge_warp_metadata.sync_markers VALUES ('table:shop:shop.orders', 'table', 'shop', 'shop', 'orders', 0, '', 1, NULL, 0, DEFAULT, 0, 0, 'streaming', 2, -1, -1, NULL, '2026-11-26 06:57:25.396243+00');
INSERT INTO cartridge_warp_metadata.sync_markers VALUES ('poll:shop:shop.prices', 'poll', 'shop', 'shop', 'prices', 7, 'host:2:cd', 0, 'p-7', 1764000001.5, DEFAULT, 7, 70, 'idle', 1, -1, -1, NULL, '2026-11-26 06:57:25.39626+00');
INSERT INTO cartridge_warp_metadata.sync_runs VALUES ('r1', 'stream:shop', 'shop', NULL, NULL, 'host:1:ab', 1764000000000001, 'running', 0, '', '2026-11-26 06:57:25.405134+00', NULL);
SELECT pg_catalog.setval('cartridge_warp_metadata.deletion_audit_id_seq', 1, true);
SELECT pg_catalog.setval('cartridge_warp_metadata.error_log_id_seq', 1, true);
SELECT pg_catalog.setval('cartridge_warp_metadata.quarantine_id_seq', 2, true);
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
CREATE INDEX quarantine_waiting ON cartridge_warp_metadata.quarantine USING btree (source_namespace, source_table) WHERE (state = 'waiting'::text);
CREATE INDEX sync_markers_of_table ON cartridge_warp_metadata.sync_markers USING btree (schema_name, source_namespace, source_table, kind);
CREATE INDEX sync_runs_open ON cartridge_warp_metadata.sync_runs USING btree (unit) WHERE (ended_at IS NULL);
