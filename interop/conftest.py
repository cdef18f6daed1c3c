"""Prints the table that docs/usage.md holds."""

from __future__ import annotations

from typing import Any

ROWS: list[str] = []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("what each tool makes of each format")
    head = ["format", "tool", "polygon", "ring", "two parts", "box: drop", "keep", "ignore"]
    terminalreporter.write_line("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in terminalreporter.config.stash.get("rows", ROWS):
        terminalreporter.write_line(row)
