-- The generation of the cluster that has claimed the source, of one that knew
-- no generations the first; and whether the transaction that is under way
-- restores what desnode had written (it says so, and takes it back, itself).
ALTER TABLE desnode ADD COLUMN generation INTEGER NOT NULL DEFAULT 1 CHECK (generation >= 1);
ALTER TABLE desnode ADD COLUMN restoring INTEGER NOT NULL DEFAULT 0 CHECK (restoring IN (0, 1));

-- As before, and a restoration may go further: to the record's version, and
-- from a row that no pack has straight to what the record says. It is looked
-- for last, so that no other change costs more than before.
DROP TRIGGER files_transition;
CREATE TRIGGER files_transition BEFORE UPDATE OF status, archive_version ON files
WHEN NOT CASE
  WHEN OLD.status = NEW.status AND NEW.archive_version = OLD.archive_version THEN 1
  WHEN OLD.status = 'ACTIVE' AND NEW.status = 'MARKED' THEN NEW.archive_version = OLD.archive_version + 1
  WHEN NEW.archive_version = OLD.archive_version AND CASE
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
  END THEN 1
  WHEN NOT EXISTS (SELECT 1 FROM desnode WHERE restoring = 1) THEN 0
  WHEN OLD.status = NEW.status THEN OLD.status IN ('ACTIVE', 'MARKED', 'FAILED') AND NEW.archive_version > OLD.archive_version
  WHEN OLD.status IN ('ACTIVE', 'MARKED') AND NEW.status IN ('PACKED', 'DELETED_SOURCE')
    THEN OLD.des_pack IS NULL AND NEW.archive_version >= max(1, OLD.archive_version)
  ELSE 0
END
BEGIN
  SELECT RAISE(ABORT, 'illegal transition of a file''s state or version');
END;
