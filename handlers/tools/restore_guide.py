"""x."""
from __future__ import annotations
from collections.abc import Mapping, Sequence
from handlers.contract import JSON
def guide(chain: Sequence[Mapping[str, JSON]]) -> str:
    return ""
