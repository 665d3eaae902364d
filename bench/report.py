"""Collects the figures, and writes them as a table, as JSON and as docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the report."""

    step: str
    what: str
    runs: Sequence[float]
    """The value of each repetition. The report shows the median."""
    unit: str
    against: str = ""
    """The name of the reference."""
    reference: float = 0.0
    """The value of the reference, in the same unit."""
    goal: str = ""
    """The goal for the ratio to the reference, for example `≥ 0.8`."""
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.runs)

    @property
    def ratio(self) -> float | None:
        return self.value / self.reference if self.reference else None

    @property
    def met(self) -> bool | None:
        """Returns whether the ratio meets the goal. Returns None without a goal."""
        if self.ratio is None or not self.goal:
            return None
        comparison, _, bound = self.goal.partition(" ")
        return self.ratio >= float(bound) if comparison == "≥" else self.ratio <= float(bound)


@dataclass(slots=True)
class Report:
    """Holds all figures of a run. environment: names and values, in the order of the report."""

    environment: dict[str, str]
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        self.figures += figures

    def value(self, step: str, what: str) -> float:
        """Returns an earlier figure of the run, or 0 if it was not measured."""
        return next((f.value for f in self.figures if (f.step, f.what) == (step, what)), 0.0)

    def missed(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.met is False]

    def json(self) -> bytes:
        rows: list[dict[str, Any]] = [
            asdict(figure) | {"value": figure.value, "ratio": figure.ratio, "met": figure.met}
            for figure in self.figures
        ]
        content = {"environment": self.environment, "remarks": self.remarks, "figures": rows}
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def print(self, console: Console) -> None:
        table = Table(*_HEADINGS, title_justify="left", header_style="bold")
        for column in (2, 3, 5):
            table.columns[column].justify = "right"
        previous = ""
        for figure in self.figures:
            step, *cells = _cells(figure)
            table.add_row(step if step != previous else "", *cells, style=_STYLES[figure.met])
            previous = step
        console.print(table, soft_wrap=False)
        for remark in self.remarks:
            console.print(remark, style="yellow")

    def markdown(self) -> str:
        """Returns the text of docs/benchmarks.md."""
        remarks = [f"> {remark}\n" for remark in self.remarks]
        parts = {
            "environment": _table(("", ""), self.environment.items()),
            "results": [*remarks, *_table(_HEADINGS, map(_cells, self.figures))],
        }
        text = _TEMPLATE.read_text()
        for name, lines in parts.items():
            text = text.replace(f"<!-- {name} -->", "\n".join(lines))
        return text


_HEADINGS = ("step", "what", "median", "runs (min – max)", "compared with", "ratio", "remarks")
_STYLES: Mapping[bool | None, str] = {None: "", True: "green", False: "red"}

_TEMPLATE = Path(__file__).with_name("template.md")


def _cells(figure: Figure) -> tuple[str, ...]:
    spread = f"{_number(min(figure.runs))} – {_number(max(figure.runs))}" if len(figure.runs) > 1 else ""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    against = f"{figure.against}: {_number(figure.reference)}" if figure.reference else ""
    goal = f"goal {figure.goal}{'' if figure.met else ', missed'}" if figure.goal else ""
    remarks = "; ".join(filter(None, (goal, figure.note)))
    return figure.step, figure.what, f"{_number(figure.value)} {figure.unit}", spread, against, ratio, remarks


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(headings: Sequence[str], rows: Any) -> list[str]:
    cells = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]
