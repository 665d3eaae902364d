#!/bin/bash
# Run once, on an empty data folder, by the image's entrypoint: the role that the connector and the syncer use. It may
# read, and stream the WAL; it cannot write.
set -euo pipefail
psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set=password="$SYNCER_PASSWORD" <<'SQL'
CREATE ROLE syncer LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_data TO syncer;
SQL
