"""The public description of a published table: its columns, bounds and categories, as the owner declared them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from syft_lab.errors import QueryError, WireError

Kind = Literal["int", "float", "bool", "text"]
Scalar = int | float | bool | str
MAX_TEXT = 1000


@dataclass(frozen=True)
class Column:
    """What the owner published about a column. ``bounds`` in the column's own unit; both may be None."""

    name: str
    kind: Kind
    bounds: tuple[float, float] | None = None
    categories: tuple[Scalar, ...] | None = None


@dataclass(frozen=True)
class Schema:
    """The public description of a published table. ``max_rows`` is a declared constant, never derived from data."""

    columns: tuple[Column, ...]
    max_contributions: int
    max_rows: int

    def column(self, name: str) -> Column:
        """The column called ``name``; raises QueryError that lists the columns there are."""
        return self.columns[self.position(name)]

    def position(self, name: str) -> int:
        """Where the column stands; stored columns are named by it. Raises QueryError as `column` does."""
        for i, column in enumerate(self.columns):
            if column.name == name:
                return i
        known = ", ".join(c.name for c in self.columns[:20])
        raise QueryError(f"there is no column {ascii(name)[:80]}; the columns are: {known}")


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """JSON object of a schema."""
    columns = [
        {
            "name": c.name,
            "kind": c.kind,
            "bounds": None if c.bounds is None else list(c.bounds),
            "categories": None if c.categories is None else list(c.categories),
        }
        for c in schema.columns
    ]
    return {"columns": columns, "max_contributions": schema.max_contributions, "max_rows": schema.max_rows}


def schema_from_json(content: Any) -> Schema:
    """The schema in a JSON object; raises WireError."""
    try:
        columns = tuple(
            Column(
                c["name"],
                c["kind"],
                None if c["bounds"] is None else (c["bounds"][0], c["bounds"][1]),
                None if c["categories"] is None else tuple(c["categories"]),
            )
            for c in content["columns"]
        )
        kinds = {c.kind for c in columns} <= {"int", "float", "bool", "text"}
        names = all(isinstance(c.name, str) and len(c.name) <= MAX_TEXT for c in columns)
        if kinds and names:
            return Schema(columns, int(content["max_contributions"]), int(content["max_rows"]))
    except (KeyError, TypeError, IndexError, ValueError):
        pass
    raise WireError("a schema has columns, max_contributions and max_rows")
