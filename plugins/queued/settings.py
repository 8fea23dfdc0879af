"""Settings that all queued providers share."""

from typing import Annotated

from msgspec import Meta

from plugins.contract import ProviderSettings
from plugins.queued.polling import Pace

_Seconds = Annotated[float, Meta(ge=0.01, le=60)]


class QueuedSettings(ProviderSettings, frozen=True, kw_only=True):
    """``poll_first_s`` is how soon work is first asked after, ``poll_longest_s`` the most that is
    waited between two questions. ``ca_file`` names a PEM file of a certificate authority to trust
    besides the usual ones.
    """

    poll_first_s: _Seconds = 0.3
    poll_longest_s: _Seconds = 2.0
    ca_file: str | None = None

    def pace(self) -> Pace:
        """How often to ask."""
        return Pace(first_s=self.poll_first_s, longest_s=self.poll_longest_s)
