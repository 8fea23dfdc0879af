"""The journal's hash chain, see ``app.storage.chain``: migrations need it too."""

from app.storage.chain import HEAD, link

__all__ = ["HEAD", "link"]
