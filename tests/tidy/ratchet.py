"""Exceptions to the size rules: may shrink, never grow. An entry that is no longer needed fails.

A new entry needs a reason that a reviewer accepts; splitting is nearly always the better answer.
"""

FILES_OVER: dict[str, int] = {}
"""Path → lines, for files over the limit."""

FUNCTIONS_OVER: dict[str, int] = {}
"""``path::name`` → lines, for functions over the limit."""
