"""From YAML to SQL, in the order of the work. Pure: the catalog is passed in.

model        the form, its JSON Schema, and the lines of a file        lined_yaml
tree         every table and column found in the catalog               names
expressions  SQL over a row, parsed and judged, written anew           sql_parser, sql_types, functions
render_sql   one document as one statement                             scope, aggregates
compile      everything that a read model runs, as plain values        compiled
"""
