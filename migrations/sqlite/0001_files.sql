-- The embedded source: one row a file, and the rules of DESIGN.md §3.
-- Times are nanoseconds since 1970-01-01 UTC. Flags are 0 or 1.

CREATE TABLE files (
  -- Never used again once a row is gone: packs keep it as the file's id.
  id          INTEGER PRIMARY KEY AUTOINCREMENT,

  -- What the source system fills.
  name         TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  size         INTEGER NOT NULL CHECK (size >= 0),
  modified_at  INTEGER NOT NULL,
  status       TEXT    NOT NULL DEFAULT 'ACTIVE'
                 CHECK (status IN ('ACTIVE', 'MARKED', 'PACKED', 'DELETED_SOURCE', 'FAILED')),
  eligible     INTEGER NOT NULL DEFAULT 0 CHECK (eligible IN (0, 1)), -- whatever its age
  file_id      TEXT,    -- device and inode, as last seen
  checksum     BLOB    CHECK (length(checksum) = 32),                  -- SHA-256
  content_type TEXT,
  created_at   INTEGER,
  custom       TEXT    CHECK (json_valid(custom)),

  -- What desnode fills.
  archive_version         INTEGER NOT NULL DEFAULT 0 CHECK (archive_version BETWEEN 0 AND 4294967295),
  des_cluster             BLOB    CHECK (length(des_cluster) = 16),
  des_name                TEXT,    -- the served name
  des_hash                INTEGER CHECK (des_hash BETWEEN 0 AND 4294967295),
  des_shard               INTEGER,
  des_pack                BLOB    CHECK (length(des_pack) = 16),
  des_sha256              BLOB    CHECK (length(des_sha256) = 32),
  des_claim               TEXT    CHECK (des_claim <> ''),
  marked_at               INTEGER,
  packed_at               INTEGER,
  source_deleted_at       INTEGER,
  last_archive_attempt_at INTEGER,
  archive_attempts        INTEGER NOT NULL DEFAULT 0 CHECK (archive_attempts >= 0),
  archive_error           TEXT    CHECK (archive_error <> ''), -- "code: what happened"

  CHECK (status <> 'MARKED' OR (archive_version > 0 AND des_cluster IS NOT NULL AND des_name IS NOT NULL
    AND des_hash IS NOT NULL AND des_shard IS NOT NULL AND marked_at IS NOT NULL)),
  CHECK (status NOT IN ('PACKED', 'DELETED_SOURCE') OR (des_pack IS NOT NULL AND des_sha256 IS NOT NULL
    AND packed_at IS NOT NULL)),
  CHECK (status <> 'DELETED_SOURCE' OR (source_deleted_at IS NOT NULL AND des_claim IS NOT NULL)),
  -- ACTIVE too: the source system knows nothing of claims when it re-activates a row.
  CHECK (des_claim IS NULL OR status IN ('PACKED', 'DELETED_SOURCE', 'ACTIVE')),
  -- One spelling a path, so that equal files are found by equal paths.
  CHECK (path <> '' AND instr(path, '//') = 0 AND instr('/' || path || '/', '/./') = 0
    AND instr('/' || path || '/', '/../') = 0 AND substr(path, -1) <> '/')
) STRICT;

CREATE UNIQUE INDEX files_path ON files (path);

-- The name under which the file is served, or will be: unique among all rows.
CREATE UNIQUE INDEX files_served_name ON files (coalesce(des_name, name));

CREATE INDEX files_file_id ON files (file_id) WHERE file_id IS NOT NULL;
-- Rows of which nobody knows which file they reach. No original is deleted
-- while there are any, so that finding none must cost nothing.
CREATE INDEX files_unidentified ON files (id) WHERE file_id IS NULL AND status <> 'DELETED_SOURCE';

-- The pending states. files_marked holds all that counting the backlog reads.
CREATE INDEX files_active ON files (id) WHERE status = 'ACTIVE';
CREATE INDEX files_marked ON files (des_hash, id, size, marked_at, archive_attempts, last_archive_attempt_at)
  WHERE status = 'MARKED';
CREATE INDEX files_packed ON files (des_pack, id) WHERE status = 'PACKED';
CREATE INDEX files_error ON files (id) WHERE archive_error IS NOT NULL;

CREATE TRIGGER files_transition BEFORE UPDATE OF status, archive_version ON files
WHEN NOT CASE
  WHEN OLD.status = NEW.status THEN NEW.archive_version = OLD.archive_version
  WHEN OLD.status = 'ACTIVE' AND NEW.status = 'MARKED' THEN NEW.archive_version = OLD.archive_version + 1
  WHEN NEW.archive_version <> OLD.archive_version THEN 0
  WHEN OLD.status = 'MARKED' AND NEW.status = 'PACKED' THEN 1
  WHEN OLD.status = 'PACKED' AND NEW.status = 'DELETED_SOURCE' THEN OLD.des_claim IS NOT NULL AND NEW.des_claim IS OLD.des_claim
  WHEN OLD.status IN ('ACTIVE', 'MARKED') AND NEW.status = 'FAILED' THEN NEW.archive_error IS NOT NULL
  -- marked_at tells which state it failed in: Refuse clears it for ACTIVE rows.
  WHEN OLD.status = 'FAILED' AND NEW.status = 'MARKED' THEN OLD.marked_at IS NOT NULL
  -- A changed file is archived again, from whatever state. Where the original
  -- was deleted any file is a new one.
  WHEN NEW.status = 'ACTIVE' THEN NEW.size <> OLD.size OR NEW.modified_at <> OLD.modified_at
    OR OLD.status = 'DELETED_SOURCE' OR (OLD.status = 'FAILED' AND OLD.marked_at IS NULL)
  ELSE 0
END
BEGIN
  SELECT RAISE(ABORT, 'illegal transition of a file''s state or version');
END;

-- What stands in packs can't be renamed: from the first mark on.
CREATE TRIGGER files_frozen BEFORE UPDATE OF id, name, des_name ON files
WHEN NEW.id <> OLD.id
  OR OLD.archive_version > 0 AND (NEW.name <> OLD.name OR NEW.des_name IS NOT OLD.des_name)
BEGIN
  SELECT RAISE(ABORT, 'id and name are frozen once a file is marked');
END;

-- A new size or time under a state that vouches for the old one would be taken
-- for what was archived.
CREATE TRIGGER files_changed BEFORE UPDATE OF size, modified_at ON files
WHEN (NEW.size <> OLD.size OR NEW.modified_at <> OLD.modified_at) AND NEW.status <> 'ACTIVE'
BEGIN
  SELECT RAISE(ABORT, 'a changed file goes back to ACTIVE');
END;

-- Which file a row reaches is known as of its path, size and time. When one of
-- them changes, or the row comes back, it may be another file: nobody knows,
-- until whoever changed the row says, or the deletion of originals has looked.
CREATE TRIGGER files_unidentified_again AFTER UPDATE OF path, size, modified_at, status ON files
WHEN NEW.file_id IS NOT NULL AND NEW.file_id IS OLD.file_id AND (
  NEW.path <> OLD.path OR NEW.size <> OLD.size OR NEW.modified_at <> OLD.modified_at
  OR NEW.status = 'ACTIVE' AND OLD.status <> 'ACTIVE')
BEGIN
  UPDATE files SET file_id = NULL WHERE id = NEW.id;
END;

-- The cluster that archives this source; at most one row.
CREATE TABLE desnode (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  cluster BLOB NOT NULL CHECK (length(cluster) = 16)
) STRICT;
