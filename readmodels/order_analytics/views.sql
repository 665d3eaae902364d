-- The views of docs/analytics.md, over the table that DuckDB knows as `lake`.
CREATE VIEW order_changes AS
SELECT * FROM (
    SELECT *, row_number() OVER (PARTITION BY _id, _version ORDER BY _written_at, _topic_id, _offset) AS _copy
      FROM lake
) AS copies WHERE _copy = 1 AND _version > 0;

CREATE VIEW order_states AS
SELECT * FROM (
    SELECT *, row_number() OVER (PARTITION BY _id ORDER BY _version DESC) AS _age FROM order_changes
) AS versions WHERE _age = 1;

CREATE VIEW orders AS
SELECT * FROM order_states WHERE NOT _deleted;
