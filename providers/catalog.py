"""Which file translates which cloud. Only the one that is asked for is imported, so no process loads every SDK."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import cast

from providers.base import Provider
from providers.errors import VmRejected
from stagely.settings import Settings

MODULES = {"local": "providers.local"}


PLACEMENTS: dict[str, tuple[tuple[str, str], ...]] = {"local": ()}
"""Per provider, (region, size) pairs that take a preview or a build as well as its default; tried in this order."""


def alternatives(name: str, region: str, size: str, arch: str) -> Sequence[tuple[str, str]]:
    """Other placements when this one is sold out. None when the user chose one: another would not be what was asked."""
    return () if region or size else PLACEMENTS.get(name, ())


def load(name: str, settings: Settings) -> Provider:
    """A fresh provider of this name; the caller closes it. Raises VmRejected when there is none of this name."""
    module = MODULES.get(name)
    if module is None:
        raise VmRejected(f"there is no provider {name!r}: choose one of {', '.join(MODULES)} in stagely.yaml (preview)")
    # cast: importlib knows no types; each module of MODULES has this function, and the contract suite runs it.
    open_provider = cast("Callable[[Settings], Provider]", importlib.import_module(module).open_provider)
    return open_provider(settings)
