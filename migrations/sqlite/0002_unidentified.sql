-- Rows of which nobody knows which file they reach. No original is deleted
-- while there are any, so that finding none must cost nothing.
CREATE INDEX files_unidentified ON files (id) WHERE file_id IS NULL AND status <> 'DELETED_SOURCE';
