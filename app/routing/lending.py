"""The adapters as this room borrows them: a reload may take one away, but not while it is used."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from plugins.contract import Adapter


class Lender(Protocol):
    """Who has the adapters; ``app.gateway.adapters.Adapters``."""

    @property
    def current(self) -> Mapping[str, Adapter]:
        """By provider."""
        ...

    def use(self, provider: str) -> AbstractContextManager[Adapter]:
        """One of them, which stays open meanwhile. Raises AdapterError where it has gone."""
        ...
