#!/bin/sh
# Run once by the Postgres image on an empty database: the four roles of
# desnode with the passwords of the env file. `source init` grants the rights.
set -eu
psql -X -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d "$POSTGRES_DB" \
  -v marker="$DESNODE_MARKER_PASSWORD" -v packer="$DESNODE_PACKER_PASSWORD" \
  -v deleter="$DESNODE_DELETER_PASSWORD" -v reader="$DESNODE_READER_PASSWORD" <<'SQL'
CREATE ROLE desnode_marker LOGIN PASSWORD :'marker';
CREATE ROLE desnode_packer LOGIN PASSWORD :'packer';
CREATE ROLE desnode_deleter LOGIN PASSWORD :'deleter';
CREATE ROLE desnode_reader LOGIN PASSWORD :'reader';
SQL
