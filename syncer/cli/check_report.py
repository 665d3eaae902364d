"""Defines the report of `syncer check`: findings by heading, and the facts that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from syncer.checks import Finding, SourceFacts, unfit
from syncer.connect.definition import Definition
from syncer.declaration.mistakes import Mistakes
from syncer.declaration.model import Model
from syncer.errors import Fatal, Unknown
from syncer.events import TableName
from syncer.registry.loader import LoadedModel


@dataclass(slots=True)
class CheckReport:
    """Holds findings by heading, and the facts that they are about."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    loaded: list[LoadedModel] = field(default_factory=list)
    definition: Definition | None = None
    facts: SourceFacts | None = None
    models: list[Model] = field(default_factory=list)

    @property
    def tables(self) -> frozenset[TableName]:
        """Tables that any read model uses."""
        return frozenset(table for loaded in self.loaded for table in loaded.compiled.tables)

    @property
    def unfit(self) -> dict[TableName, str]:
        """Tables that must not be published in their current state, and why."""
        judged = {t: unfit(m.catalog.tables.get(t)) for m in self.loaded for t in m.compiled.tables}
        return {table: why for table, why in sorted(judged.items()) if why}

    def not_covered(self) -> Iterator[str]:
        """Yields objects that the statements in `findings` do not cover, with the reason."""
        if self.facts is None:
            broken = [f for f in self.findings.get("Connector", ()) if f.code == "connector-definition"]
            yield from (f"the publication: {f.where}: {f.what}" for f in broken)
        for finding in self.findings.get("Read models", ()):
            yield f"the tables of a read model: {finding.where}: {finding.what}"
        for model in self.models:
            if all(loaded.model is not model for loaded in self.loaded):
                why = "; ".join(f"{f.where}: {f.what}" for f in self.findings[f"Read model {model.name}"])
                yield f"the tables of read model {model.name}: {why}"
        yield from (f"table {table} in the publication: {why}" for table, why in self.unfit.items())

    def all(self, severity: str = "") -> list[Finding]:
        """Returns all findings, or those of one severity."""
        return [f for found in self.findings.values() for f in found if severity in ("", f.severity)]

    @contextmanager
    def as_finding(self, title: str, code: str) -> Iterator[None]:
        """Turns a Fatal error of the block into findings under this heading.

        Raises Unknown, which is an error of the command line.
        """
        found = self.findings.setdefault(title, [])
        try:
            yield
        except Unknown:
            raise
        except Fatal as error:
            for one in error.each if isinstance(error, Mistakes) else [error]:
                found.append(Finding("error", code, one.where or title, one.what, one.why, one.hint))
