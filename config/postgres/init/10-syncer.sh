#!/bin/bash
# Run once by the image's entrypoint, on an empty data folder: the shop's tables, which know nothing of all this, and
# then what reading their changes needs.
set -euo pipefail

shop() { psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"; }

shop --file=/srv/shop/schema.sql

shop --set=password="$SYNCER_PASSWORD" <<'SQL'
-- The role of the connector and of the syncer: it may read, and stream the WAL; it cannot write.
CREATE ROLE syncer LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_data TO syncer;

-- Events carry the row as it was before, so that a child that moves or goes also tells which parent it had.
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE order_items REPLICA IDENTITY FULL;

CREATE PUBLICATION syncer_shop FOR TABLE customers, products, orders, order_items
    WITH (publish_via_partition_root = true);
SQL
