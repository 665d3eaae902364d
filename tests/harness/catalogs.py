"""Builds catalogs in memory from short descriptions of tables."""

from syncer.declaration.catalog import Catalog, Column, Index, Leaf, Table
from syncer.events import TableName

_LONG = {
    "int": "integer",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
    "float8": "double precision",
}


def table(name: str, columns: str, *, unique: tuple[str, ...] = (), full: bool = False, **more: object) -> Table:
    """Builds a table.

    columns: for example "id bigint key, status text".
    unique: additional unique indexes, each as column names separated by spaces.
    full: REPLICA IDENTITY FULL.
    """
    schema, _, bare = name.rpartition(".")
    table_name = TableName(schema or "public", bare)
    found, key = {}, []
    for text in columns.split(","):
        word, type_, *rest = text.split()
        type_ = _LONG.get(type_, type_)
        array = type_.endswith("[]")
        base = "array" if array else "enum" if type_.startswith("public.") else type_
        element = type_[:-2] if array else ""
        element_base = "enum" if element.startswith("public.") else element
        found[word] = Column(word, type_, base, "key" in rest, element=element, element_base=element_base)
        if "key" in rest:
            key.append(word)
    indexes = [Index("pkey", tuple(key), True, False)] if key else []
    indexes += [Index(f"u{i}", tuple(text.split()), True, False) for i, text in enumerate(unique)]
    leaf = Leaf(1, table_name, "full" if full else "default", tuple(found if full else key))
    return Table(table_name, 1, "table", "permanent", found, tuple(key), tuple(indexes), (leaf,))


def catalog(*tables: Table, enums: dict[str, tuple[str, ...]] | None = None) -> Catalog:
    """Builds a catalog of tables and enum types."""
    return Catalog({t.name: t for t in tables}, enums or {})


SHOP = catalog(
    table("customers", "id bigint key, name text, email text", unique=("email",)),
    table("products", "id bigint key, sku text, name text"),
    table(
        "orders",
        "id bigint key, customer_id bigint, status text, placed_at timestamptz, data json, m money",
        full=True,
    ),
    table("order_items", "id bigint key, order_id bigint, product_id bigint, quantity int, unit_price numeric"),
    table("product_tags", "product_id bigint key, tag_id bigint key, position int"),
    table("tags", "id bigint key, name text"),
)
