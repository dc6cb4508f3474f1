-- +goose Up
-- The generation of the cluster that has claimed the source: whatever an older
-- one still does is refused. A claim that knows none is of the first.
ALTER TABLE desnode.cluster ADD COLUMN generation bigint NOT NULL DEFAULT 1 CHECK (generation >= 1);

-- +goose Down
ALTER TABLE desnode.cluster DROP COLUMN generation;
