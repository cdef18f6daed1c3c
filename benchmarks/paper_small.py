"""The page's tables of the paper's experiments, as far as their small files are there."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.experiments.paper_page import lines_of, result_of, table_of
from deepmac_distill.experiments.paper_tables import tables
from deepmac_distill.report.markdown import markdown_table

RESULTS = Path(__file__).parent / "results"


def page(results: Path = RESULTS) -> str:
    """Markdown: each table of which a row is there, rows that are not left out."""
    parts = []
    for of in tables().values():
        found = result_of(of, of.rows, "small", results / "paper", results / "mask_heads")
        if any(row.ours for row in found.rows):
            shown = table_of(found, only_run=True)
            parts += [
                f"**{of.id}**: {of.title}",
                "",
                markdown_table(shown),
                "",
                " ".join(lines_of(found)),
                "",
            ]
    return "\n".join(parts).strip() or "(not recorded yet)"
