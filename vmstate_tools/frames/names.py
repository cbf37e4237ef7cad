"""Names that frames show: tables that are empty here, and that `vmstate_tools.facts` fills."""

from __future__ import annotations

FLAG_NAMES: dict[str, dict[int, str]] = {}
"""Word → bit → the name of its flag; without it flag words are shown as hex alone."""

MODEL_NAMES: dict[str, str] = {}
"""A CPU model's name in lower case → the one spelling that frames use; a model that is not in it stays as it is."""
