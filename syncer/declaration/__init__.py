"""Compiles a read model from YAML to SQL. Pure: the catalog is passed in, and no module connects to a server.

In the order of the work:

1. `located_yaml.py` reads the YAML file, `form.py` validates its structure, and `model.py` loads whole folders.
   `form_errors.py` and `mistakes.py` report everything that is wrong in it, with lines.
2. `binding.py` builds the tree of tables (`node.py`) and resolves names with the `catalog.py` of the database
   (`names.py`).
3. `sql_parser.py` parses each expression. `expressions.py` and `calls.py` validate it and generate it again. They use
   the lists in `functions.py` and `extensions.py` and the types in `sql_types.py`.
4. `row.py` resolves the names of expressions at one row, `scope.py` adds the joins that they need, and `aggregates.py`
   writes aggregates.
5. `render_sql.py` assembles the SQL of one document.
   If a relation is divided, `partials.py` compiles the partials: `partial_states.py` writes the states of aggregates,
   `partial_statements.py` the statements, and `partial_lookups.py` the look-ups (`partial_keys.py`,
   `partial_mistakes.py`).
6. `compile.py` returns the `compiled.py` read model, which the pipeline runs.

`isolate.py` finds the expression that PostgreSQL rejects. `reference.py` generates the lists in docs/read-models.md.
"""
