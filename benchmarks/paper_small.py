"""The page's tables of the paper's experiments, as far as their small files are there."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.experiments.paper_kept import Kept
from deepmac_distill.experiments.paper_page import bullets, differences_table, lines_of, result_of, table_of
from deepmac_distill.experiments.paper_tables import tables
from deepmac_distill.report.markdown import markdown_table

RESULTS = Path(__file__).parent / "results"


def page(results: Path = RESULTS) -> str:
    """Markdown: each table of which a row is there, rows that are not left out."""
    parts, kept = [], Kept(results / "paper", results / "mask_heads")
    for of in tables().values():
        found = result_of(of, of.rows, "small", kept)
        if any(row.ours for row in found.rows):
            shown, differences = table_of(found, only_run=True), differences_table(found)
            parts += [
                f"**{of.id}**: {of.title}",
                "",
                markdown_table(shown),
                "",
                *([] if differences is None else [markdown_table(differences), ""]),
                bullets(lines_of(found)),
                "",
            ]
    return "\n".join(parts).strip() or "(not recorded yet)"
