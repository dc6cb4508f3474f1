-- +goose Up
-- The reference table, for those who have no table of their files yet.
CREATE TABLE desnode.files (
  -- Never used again once a row is gone: packs keep it as the file's id.
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

  -- What the source system fills.
  name         text        NOT NULL,
  path         text        NOT NULL,
  size         bigint      NOT NULL CHECK (size >= 0),
  modified_at  timestamptz NOT NULL,
  status       text        NOT NULL DEFAULT 'ACTIVE'
    CHECK (status IN ('ACTIVE', 'MARKED', 'PACKED', 'DELETED_SOURCE', 'FAILED')),
  created_at   timestamptz,
  checksum     bytea       CHECK (octet_length(checksum) = 32), -- SHA-256
  content_type text,
  custom       jsonb       CHECK (jsonb_typeof(custom) = 'object'),

  -- What desnode fills.
  archive_version         bigint  NOT NULL DEFAULT 0 CHECK (archive_version BETWEEN 0 AND 4294967295),
  des_cluster             bytea   CHECK (octet_length(des_cluster) = 16),
  des_name                text,    -- the served name
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
  archive_error           text    CHECK (archive_error <> ''), -- "code: what happened"

  CHECK (status <> 'MARKED' OR (archive_version > 0 AND des_cluster IS NOT NULL AND des_name IS NOT NULL
    AND des_hash IS NOT NULL AND des_shard IS NOT NULL AND marked_at IS NOT NULL)),
  CHECK (status NOT IN ('PACKED', 'DELETED_SOURCE') OR (des_pack IS NOT NULL AND des_sha256 IS NOT NULL
    AND packed_at IS NOT NULL)),
  CHECK (status <> 'DELETED_SOURCE' OR (source_deleted_at IS NOT NULL AND des_claim IS NOT NULL)),
  -- ACTIVE too: the source system knows nothing of claims when it re-activates a row.
  CHECK (des_claim IS NULL OR status IN ('PACKED', 'DELETED_SOURCE', 'ACTIVE'))
)
-- Three updates a row: room for them beside it keeps the indexes that do not
-- change out of it.
WITH (fillfactor = 85);

-- No original is deleted while two rows reach one file.
CREATE UNIQUE INDEX files_path ON desnode.files (path);

-- +goose Down
DROP TABLE desnode.files;
