-- +goose Up
-- What desnode keeps for itself in a source's database, whatever the binding.

-- The cluster that archives a source; a second one refuses to start.
CREATE TABLE desnode.cluster (
  source  text  PRIMARY KEY,
  cluster bytea NOT NULL CHECK (octet_length(cluster) = 16)
);

-- Which file each row reaches, as of the row's path, size and time. It stands
-- apart, so that finding out costs the customer's row no update.
CREATE TABLE desnode.file_id (
  source      text NOT NULL,
  id          text NOT NULL,
  path        text NOT NULL,
  size        bigint NOT NULL,
  modified_at timestamptz NOT NULL,
  file_id     text NOT NULL CHECK (file_id <> ''),
  PRIMARY KEY (source, id)
);
CREATE INDEX file_id_file ON desnode.file_id (source, file_id);

-- The side binding: what desnode knows of the rows of tables that can't be
-- altered. Only the triggers of the views desnode.<source> write here.
CREATE TABLE desnode.entry (
  source text NOT NULL,
  id     text NOT NULL,
  -- The file that the rest is about, as the customer's row listed it. A row that
  -- lists another size or time now is a changed file.
  size        bigint,
  modified_at numeric, -- seconds since 1970 of a time, a number as it is

  status                  text    NOT NULL
    CHECK (status IN ('ACTIVE', 'MARKED', 'PACKED', 'DELETED_SOURCE', 'FAILED')),
  archive_version         bigint  NOT NULL DEFAULT 0 CHECK (archive_version BETWEEN 0 AND 4294967295),
  des_cluster             bytea   CHECK (octet_length(des_cluster) = 16),
  des_name                text,
  des_shard               integer,
  des_hash                bigint  CHECK (des_hash BETWEEN 0 AND 4294967295),
  des_pack                bytea   CHECK (octet_length(des_pack) = 16),
  des_sha256              bytea   CHECK (octet_length(des_sha256) = 32),
  des_claim               text    CHECK (des_claim <> ''),
  marked_at               timestamptz,
  packed_at               timestamptz,
  source_deleted_at       timestamptz,
  last_archive_attempt_at timestamptz,
  archive_attempts        integer NOT NULL DEFAULT 0 CHECK (archive_attempts >= 0),
  archive_error           text    CHECK (archive_error <> ''),
  PRIMARY KEY (source, id),
  CHECK (status <> 'MARKED' OR (archive_version > 0 AND des_cluster IS NOT NULL AND des_name IS NOT NULL
    AND des_hash IS NOT NULL AND des_shard IS NOT NULL AND marked_at IS NOT NULL)),
  CHECK (status NOT IN ('PACKED', 'DELETED_SOURCE') OR (des_pack IS NOT NULL AND des_sha256 IS NOT NULL
    AND packed_at IS NOT NULL)),
  CHECK (status <> 'DELETED_SOURCE' OR (source_deleted_at IS NOT NULL AND des_claim IS NOT NULL))
);
CREATE UNIQUE INDEX entry_served_name ON desnode.entry (source, des_name);
CREATE INDEX entry_active ON desnode.entry (source, id) WHERE status = 'ACTIVE';
CREATE INDEX entry_marked ON desnode.entry (source, des_hash, id) WHERE status = 'MARKED';
CREATE INDEX entry_packed ON desnode.entry (source, des_pack, id) WHERE status = 'PACKED';
CREATE INDEX entry_error ON desnode.entry (source, id) WHERE archive_error IS NOT NULL;

-- Nobody but the owner, until the roles are granted what they need.
REVOKE ALL ON SCHEMA desnode FROM PUBLIC;

-- +goose Down
DROP TABLE desnode.entry;
DROP TABLE desnode.file_id;
DROP TABLE desnode.cluster;
