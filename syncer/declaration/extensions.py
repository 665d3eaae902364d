"""Supports types and functions of extensions: hstore, PostGIS, and types with a cast to json.

The session's search path is `pg_catalog`. Types and functions are therefore qualified with the schema of their
extension. A function is listed if all its overloads are immutable and none is an aggregate.
(tests/integration/test_types.py compares the list with the catalog.)

A document shows a geometry as GeoJSON (RFC 7946), whose coordinates are longitude and latitude of WGS 84 (SRID 4326).
So the type of an expression includes the kind of geometry and the SRID, in the form of a column's type modifier:
`geometry(Point,4326)`. SRID 0 means that the SRID is not known before a row is read.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlglot import exp

from syncer.declaration.catalog import Column
from syncer.declaration.names import quote
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import Value

Schemas = Mapping[str, str]
"""The schema of each installed extension, as in `Catalog.extensions`."""

_EXTENSIONS = {"hstore": "hstore", "geometry": "postgis", "geography": "postgis"}
_AS_JSON = " with a cast to json"
"""The suffix of the type of such values. Their JSON may have several lines, so documents show them by `to_jsonb`."""
_SPATIAL = ("geometry", "geography")
_WGS_84 = 4326
_TYPE = re.compile(r"(geometry|geography)\((\w+),(\d+)\)")
_GEOJSON_KINDS = frozenset(
    "geometry point linestring polygon multipoint multilinestring multipolygon geometrycollection".split()
)
_WITHOUT_RINGS = frozenset(("point", "linestring", "multipoint", "multilinestring"))

_BY_RESULT = {
    "text": """
        st_astext st_asewkt st_asgeojson st_geohash st_geometrytype geometrytype st_aslatlontext
        st_isvalidreason""",
    "double precision": """
        st_x st_y st_z st_m st_xmin st_xmax st_ymin st_ymax st_zmin st_zmax st_area st_length st_perimeter
        st_distance st_distancesphere st_distancespheroid st_maxdistance st_azimuth
        st_linelocatepoint""",
    "integer": """
        st_srid st_npoints st_numpoints st_numgeometries st_numinteriorrings st_nrings st_dimension""",
    "boolean": """
        st_isvalid st_isempty st_issimple st_isclosed st_isring st_contains st_containsproperly st_within
        st_intersects st_covers st_coveredby st_dwithin st_equals st_touches st_overlaps st_crosses
        st_disjoint st_pointinsidecircle""",
    "same": """
        st_force2d st_force3d st_snaptogrid st_reverse st_forcepolygonccw st_forcepolygoncw
        st_flipcoordinates st_setsrid st_transform st_translate st_normalize""",
    "point": """
        st_centroid st_pointonsurface st_startpoint st_endpoint st_pointn st_closestpoint
        st_lineinterpolatepoint""",
    "geometry": """
        st_simplify st_simplifypreservetopology st_simplifyvw st_buffer st_envelope st_convexhull st_boundary
        st_makevalid st_intersection st_difference st_symdifference st_exteriorring st_interiorringn
        st_geometryn st_multi st_curvetoline st_linesubstring st_linemerge st_collectionextract
        st_removerepeatedpoints st_shortestline""",
    "new point": "st_makepoint st_point st_pointfromtext",
    "new geometry": "st_geomfromtext st_geomfromewkt st_geomfromgeojson st_makeenvelope",
}
FUNCTIONS = {name: result for result, names in _BY_RESULT.items() for name in names.split()}
"""PostGIS's functions that expressions can use. The value is the result type, or says how the type is derived."""

_GEOMETRIES = frozenset(("same", "point", "geometry", "new point", "new geometry"))
_SRID_ARGUMENT = {
    "st_setsrid": 1,
    "st_transform": 1,
    "st_point": 2,
    "st_pointfromtext": 1,
    "st_geomfromtext": 1,
    "st_makeenvelope": 4,
}
"""The position of the argument that gives the SRID of the result."""


class GeometryType(NamedTuple):
    """The properties of a geometry that are known before a row is read."""

    base: str
    """`geometry` or `geography`."""
    kind: str
    """The kind as in the type modifier: `Point`, `MultiPolygonZ`. `Geometry` stands for any kind."""
    srid: int

    @property
    def type(self) -> str:
        return f"{self.base}({self.kind},{self.srid})"

    @property
    def plain_kind(self) -> str:
        """Returns the kind in lower case, without the letters of further dimensions (Z, M)."""
        return re.sub(r"[zm]+$", "", self.kind.lower())


def geometry_type(type: str) -> GeometryType | None:
    """Returns the geometry type that the type of an expression contains. None if it is not a geometry."""
    found = _TYPE.fullmatch(type)
    return GeometryType(found[1], found[2], int(found[3])) if found else None


def _with_modifier(base: str, modifier: str) -> str:
    """Returns the type of an expression: `geometry` and `Point,4326` give `geometry(Point,4326)`.

    A geography without an SRID has 4326.
    """
    kind, _, srid = modifier.partition(",")
    number = int(srid) if srid.strip().isdigit() else 0
    if base == "geography" and not number:
        number = _WGS_84
    return GeometryType(base, kind.strip() or "Geometry", number).type


def column_type(column: Column, schemas: Schemas) -> str:
    """Returns the type of a column's values, or of the elements of an array.

    Empty if the type has no cast to json and belongs to no extension of this module.
    """
    base = column.element_base if column.base == "array" else column.base
    if _EXTENSIONS.get(base, "") in schemas:
        return _with_modifier(base, column.shape) if base in _SPATIAL else base
    return f"{base}{_AS_JSON}" if column.json_cast else ""


def cast(operand: Value, to: exp.Expr, schemas: Schemas) -> Value | None:
    """Returns `operand::to`, or None if the type belongs to no extension of this module.

    Raises UnsupportedExpression if the extension is missing, or has the type in another schema.
    """
    if not isinstance(to, exp.DataType):
        return None
    words = [part.name.lower() for part in to.args["kind"].find_all(exp.Identifier)] if to.args.get("kind") else []
    name = words[-1] if words else to.this.value.lower() if isinstance(to.this, exp.DType) else ""
    extension = _EXTENSIONS.get(name)
    if extension is None:
        return None
    schema = _schema(extension, f"the type {name}", schemas)
    if len(words) > 1 and words[0] != schema.lower():
        raise UnsupportedExpression(
            f"cannot cast to {words[0]}.{name}", f"the extension {extension} is in the schema {schema}: write {name}"
        )
    modifier = ",".join(str(part.this.this) for part in to.expressions)
    if not re.fullmatch(r"(\w+(,\d+)?)?", modifier) or (modifier and name not in _SPATIAL):
        raise UnsupportedExpression(f"cannot cast to {name}({modifier})", "write it as in geometry(Point,4326)")
    sql = f"({operand.sql}::{quote(schema, name)}{f'({modifier})' if modifier else ''})"
    if name not in _SPATIAL:
        return Value(sql, name)
    was = geometry_type(operand.type)  # a cast without modifier changes neither kind nor SRID
    return Value(sql, _with_modifier(name, modifier or (f"{was.kind},{was.srid}" if was else "")))


def call(name: str, arguments: Sequence[Value], schemas: Schemas) -> Value:
    """Returns a call of one of FUNCTIONS. Raises UnsupportedExpression if PostGIS is not installed."""
    schema = _schema("postgis", f"{name}()", schemas)
    return Value(f"{quote(schema, name)}({', '.join(a.sql for a in arguments)})", _result(name, arguments))


def _schema(extension: str, what: str, schemas: Schemas) -> str:
    if extension not in schemas:
        hint = f"CREATE EXTENSION {extension};"
        raise UnsupportedExpression(f"{what} needs the extension {extension}, which this database does not have", hint)
    return schemas[extension]


def _result(name: str, arguments: Sequence[Value]) -> str:
    result = FUNCTIONS[name]
    if result not in _GEOMETRIES:
        return result
    first = geometry_type(arguments[0].type) if arguments else None
    base = first.base if first else "geometry"
    kind = "Point" if "point" in result else first.kind if first and result == "same" else "Geometry"
    srid = first.srid if first else _WGS_84 if name == "st_geomfromgeojson" else 0
    position = _SRID_ARGUMENT.get(name)
    if position is not None and len(arguments) > position:
        text = arguments[position].sql
        srid = int(text) if text.isdigit() else 0
    return GeometryType(base, kind, srid).type


def shown(value: Value, name: str, schemas: Schemas) -> Value:
    """Returns a value as a document shows it: geometries as GeoJSON, and types with a cast to json on one line.

    The elements of an array are converted too.
    name: the expression in the declaration. Raises UnsupportedExpression for a geometry that GeoJSON cannot represent.
    """
    type = value.element if value.type == "array" else value.type
    if type.endswith(_AS_JSON):
        return Value(f"pg_catalog.to_jsonb({value.sql})", "jsonb")
    geometry = geometry_type(type)
    if geometry is None:
        return value
    if why := _no_geojson(geometry, name):
        raise UnsupportedExpression(*why)
    schema = _schema("postgis", name, schemas)
    if value.type != "array":
        return _geojson(value.sql, geometry, schema)
    element = _geojson("u.v", geometry, schema)
    rows = f"pg_catalog.unnest({value.sql}) WITH ORDINALITY AS u(v, n) ORDER BY u.n"
    sql = f"CASE WHEN {value.sql} IS NOT NULL THEN ARRAY(SELECT {element.sql} FROM {rows}) END"
    return Value(sql, "array", element.type)


def _no_geojson(geometry: GeometryType, name: str) -> tuple[str, str] | None:
    """Returns why GeoJSON cannot represent a geometry, and what to write instead. None if it can."""
    if geometry.plain_kind not in _GEOJSON_KINDS:
        return f"GeoJSON has no {geometry.kind}", f"turn arcs into lines: ST_CurveToLine({name})"
    needed = "a document shows longitude and latitude (SRID 4326)"
    if geometry.srid == 0:
        hint = f"if its coordinates are longitude and latitude: ST_SetSRID({name}, 4326)"
        hint += f"; if its values have an SRID: ST_Transform({name}, 4326)"
        return f"the SRID of {name} is not known, and {needed}", hint
    if geometry.srid != _WGS_84:
        plain = f"{name}::geometry" if geometry.base == "geography" else name
        return f"the SRID of {name} is {geometry.srid}, and {needed}", f"ST_Transform({plain}, 4326)"
    return None


def _geojson(sql: str, geometry: GeometryType, schema: str) -> Value:
    """Returns a geometry as GeoJSON without `crs`.

    Outer rings run counter-clockwise, as RFC 7946 requires. Elasticsearch would read a clockwise ring that is wider
    than 180 degrees as one that crosses the date line.
    """
    if geometry.base == "geography":
        sql = f"({sql})::{quote(schema, 'geometry')}"
    if geometry.plain_kind not in _WITHOUT_RINGS:
        sql = f"{quote(schema, 'st_forcepolygonccw')}({sql})"
    text = f"{quote(schema, 'st_asgeojson')}({sql}, 15, 0)"
    return Value(f"{text}::pg_catalog.json", "geojson point" if geometry.plain_kind == "point" else "geojson")


def instead(name: str, type: str) -> str:
    """Returns advice for a value of an extension's type that is used with an operator or function of PostgreSQL."""
    if geometry_type(type):
        return f"use a function of PostGIS, such as ST_Distance or ST_Intersects, or {name}::text"
    return f"cast it: {name}::{'jsonb' if type == 'hstore' else 'text'}"
