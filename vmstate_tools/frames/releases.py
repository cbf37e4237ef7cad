"""A column of releases: categories in the order of the releases, so that 2.10 sorts behind 2.6 and 2.7."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from vmstate_tools.errors import CatalogError
from vmstate_tools.release import Release


def release_column(names: Iterable[Any]) -> pd.Categorical:
    """Returns releases as an ordered categorical of text; None and "" are missing.

    What names no release is a category too, behind all releases, in alphabetical order.
    """
    values = [name if isinstance(name, str) and name else None for name in names]
    categories = sorted({value for value in values if value is not None}, key=_order)
    return pd.Categorical(values, pd.Index(categories, dtype="str"), ordered=True)


def _order(name: str) -> tuple[bool, Any, str]:
    try:
        return False, Release(name).numbers, name
    except CatalogError:
        return True, (), name
