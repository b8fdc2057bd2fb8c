"""What a value says of itself where it is shown: names and texts, as a line or as a table."""

from __future__ import annotations

import html
from collections.abc import Sequence

Facts = Sequence[tuple[str, str]]


def line(title: str, facts: Facts) -> str:
    """Write the facts in one line."""
    return f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts)


def table(title: str, facts: Facts) -> str:
    """Write the facts as a table of HTML."""
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    return f"<p>{html.escape(title)}</p><table>{''.join(rows)}</table>"
