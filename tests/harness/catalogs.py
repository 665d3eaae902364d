"""Builds catalogs in memory from short descriptions of tables."""

from syncer.declaration.catalog import Catalog, Column, Index, Leaf, Table
from syncer.declaration.row_key import row_key
from syncer.events import TableName

_LONG = {
    "int": "integer",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
    "float8": "double precision",
}


def table(name: str, columns: str, *, unique: tuple[str, ...] = (), full: bool = False, **more: object) -> Table:
    """Builds a table.

    columns: for example "id bigint key, status text". The columns of a key, and those with `not`, are NOT NULL.
    unique: additional unique indexes, each as column names separated by spaces.
    full: REPLICA IDENTITY FULL.
    """
    schema, _, bare = name.rpartition(".")
    table_name = TableName(schema or "public", bare)
    found, key = {}, []
    for text in columns.split(","):
        word, type_, *rest = text.split()
        array = type_.endswith("[]")
        type_ = _LONG.get(type_.removesuffix("[]"), type_.removesuffix("[]")) + ("[]" if array else "")
        base = "array" if array else "enum" if type_.startswith("public.") else type_
        element = type_[:-2] if array else ""
        element_base = "enum" if element.startswith("public.") else element
        found[word] = Column(
            word, type_, base, bool({"key", "not"} & {*rest}), element=element, element_base=element_base
        )
        if "key" in rest:
            key.append(word)
    indexes = [Index("pkey", tuple(key), True, False)] if key else []
    indexes += [Index(f"u{i}", tuple(text.split()), True, False) for i, text in enumerate(unique)]
    leaf = Leaf(1, table_name, "full" if full else "default", tuple(found if full else key))
    chosen = None if key else row_key(found, indexes)
    return Table(
        table_name,
        1,
        "table",
        "permanent",
        found,
        chosen.columns if chosen else tuple(key),
        tuple(indexes),
        (leaf,),
        key_index=chosen.name if chosen else "",
    )


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
    table("devices", "id bigint key, name text"),
    table("readings", "device_id bigint key, taken_at timestamptz key, value numeric"),
    table("categories", "id bigint key, parent_id bigint, name text"),
    table("samples", "id bigint key, device_id bigint, value numeric, taken_at timestamptz not", full=True),
)

SOCIAL = catalog(
    table("users", "id bigint key, name text"),
    table("follows", "follower_id bigint key, followee_id bigint key, muted boolean", full=True),
    table("posts", "id bigint key, author_id bigint, lang text, text text", full=True),
    table("likes", "post_id bigint key, user_id bigint key"),
)

REFERENCES = catalog(
    table("comments", "id bigint key, target_id text, commentable_type text, commentable_id bigint, body text"),
    table(
        "images",
        "id bigint key, imageable_type text, imageable_id bigint, url text",
        unique=("imageable_type imageable_id",),
    ),
    table("assets", "id bigint key, owner_type text, owner_id bigint"),
    table("companies", "id bigint key, name text"),
    table("people", "id bigint key, name text"),
    table("teams", "id bigint key, name text, member_ids bigint[]"),
    table("badges", "id bigint key, label text, holder_ids bigint[]"),
)
"""Tables with references to rows of several tables, and with arrays of ids."""
