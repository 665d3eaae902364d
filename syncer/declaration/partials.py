"""Compiles combined partials: the aggregates over very many rows are rendered for one bucket of rows at a time.

The divided rows are those of a relation, or those of the groups of a grouped root. A document has these parts:

* one partial for each bucket of its rows: the aggregates over the rows of this bucket;
* the root partial: the rest of the document. It also says whether the document exists.

`Partials.parts` is a compiled read model whose documents are the partials. Its key is the key of the root, followed by
the number of the bucket. So the lanes render, version and sweep partials in the same way as documents. The sinks store
partials where readers do not see them, and `pipeline/combine.py` writes the document that readers see.
"""

from __future__ import annotations

from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Compiled
from syncer.declaration.grouped_partials import GroupedPartials
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.declaration.partial_lookups import LookupOf, UseOf
from syncer.declaration.partial_mistakes import mistakes_of
from syncer.declaration.relation_partials import RelationPartials


def with_partials(
    compiled: Compiled,
    model: Model,
    root: Node,
    catalog: Catalog,
    *,
    lookup: LookupOf,
    table_use: UseOf,
) -> Compiled:
    """Returns the read model with its partials, or unchanged if it declares none.

    Raises Fatal with every mistake.
    """
    nodes = [node for node in root.walk() if node.partials]
    if not nodes:
        return compiled
    if mistakes := mistakes_of(model, root, nodes):
        raise together(mistakes)
    compiler = GroupedPartials if nodes[0] is root else RelationPartials
    return compiler(model, root, nodes[0], catalog, lookup=lookup, table_use=table_use).compile(compiled)
