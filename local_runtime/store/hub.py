"""The Hub, through huggingface_hub, which is imported when the first model is pulled.

Downloads use its plain HTTP with ranges into a file of ours: ``hf_hub_download`` (2.x) throws what
came away when it is cut off, and Xet's protocol has no part to go on from. Nothing is reported to
anybody, no token is used that was not given, and no message holds one.
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec

from local_runtime.store.blobs import StoreError
from local_runtime.store.choice import HubFile
from local_runtime.store.names import HubName

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ENDPOINT = "https://huggingface.co"
ASK_SECONDS_MAX = 30.0
TRIES_MAX = 5
CHUNK_BYTES = 1 << 20  # as much as is lost when the process is killed
_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_VERBOSITY": "error",
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger(__name__)


class PullFailed(StoreError):
    """Nothing came, or not all of it; the text says why, and what to do."""


class PullStopped(PullFailed):
    """Somebody stopped it. What came is kept, and the next pull goes on from there."""


class HubSettings(msgspec.Struct, frozen=True):
    """Where the Hub is, and the user's token for it."""

    endpoint: str = ENDPOINT
    token: str | None = None

    def __repr__(self) -> str:
        return f"HubSettings(endpoint={self.endpoint!r}, token={'…' if self.token else None})"


class Listing(msgspec.Struct, frozen=True):
    """A repository at one commit."""

    repo: str
    commit: str
    licence: str | None
    files: list[HubFile]


class Hub:
    """Asks and downloads; synchronous."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings

    def listing(self, name: HubName) -> Listing:
        """Every file of the repository. Raises PullFailed."""
        api = self._api()
        try:
            info = api.model_info(
                name.repo, revision=name.revision, files_metadata=True, timeout=ASK_SECONDS_MAX
            )
        except Exception as error:  # noqa: BLE001 - told apart there; what is unknown is raised again
            self._explain(error, name.repo, name.revision)
        if not info.sha:
            raise PullFailed(f"{name.repo}: the Hub did not say which commit that is")
        files = [
            HubFile(
                name=each.rfilename,
                bytes=int(each.size or 0) if each.lfs is None else each.lfs.size,
                sha256=None if each.lfs is None else each.lfs.sha256,
                git_oid=each.blob_id if each.lfs is None else None,
            )
            for each in info.siblings or []
        ]
        return Listing(name.repo, info.sha, _licence(info.card_data, info.tags), files)

    def download(
        self,
        listing: Listing,
        file: HubFile,
        path: Path,
        *,
        tell: Callable[[int], None],
        keep_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Fill ``path`` up to the file's size, from where it ends now.

        ``tell`` gets the bytes that are there; ``keep_on`` may raise to stop. Raises PullFailed.
        """
        self._api()
        import httpx2
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(
            listing.repo, file.name, revision=listing.commit, endpoint=self._settings.endpoint
        )
        headers = build_hf_headers(token=self._settings.token or False, library_name="turnpike")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0) as raw:
            sink = _Sink(raw, tell, keep_on)
            tries = 0
            while (have := sink.length(file.bytes)) < file.bytes:
                try:
                    http_get(
                        url,
                        cast(Any, sink),
                        resume_size=have,
                        headers=headers,
                        expected_size=file.bytes,
                    )
                except httpx2.TransportError as error:
                    tries = 1 if sink.length(file.bytes) > have else tries + 1
                    if tries >= TRIES_MAX:
                        self._explain(error, listing.repo, listing.commit)
                    _log.info("%s: %s; going on", file.name, type(error).__name__)
                    time.sleep(min(8.0, 0.5 * 2**tries))
                    keep_on()
                except StoreError:
                    raise
                except Exception as error:  # noqa: BLE001 - as above
                    self._explain(error, listing.repo, listing.commit)

    def _api(self) -> "HfApi":
        for key, value in _ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        from huggingface_hub import HfApi, constants

        constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
        return HfApi(
            endpoint=self._settings.endpoint,
            token=self._settings.token or False,
            library_name="turnpike",
        )

    def _explain(self, error: Exception, repo: str, revision: str | None) -> NoReturn:
        """The error in words, without address or token; what is not known here is raised again."""
        import httpx2
        from huggingface_hub import errors

        where = self._settings.endpoint
        has_token = self._settings.token is not None
        text = None
        if isinstance(error, errors.GatedRepoError):
            text = f"{repo} is gated: accept its conditions at {where}/{repo} with your account" + (
                "; the token that was given belongs to one that has not (or may not read it)"
                if has_token
                else ", and give a token of that account with --token env:HF_TOKEN"
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            text = f"{repo} has no revision {revision!r}"
        elif isinstance(error, errors.RepositoryNotFoundError):
            text = f"there is no repository {repo} at {where}, or it is private" + (
                " and not for the token that was given"
                if has_token
                else "; check the name, or give a token that may read it with --token env:HF_TOKEN"
            )
        elif isinstance(error, errors.EntryNotFoundError):
            text = f"a file of {repo} went away meanwhile; try again"
        elif isinstance(error, errors.HfHubHTTPError):
            text = _status(error.response.status_code, repo, where)
        elif isinstance(error, errors.OfflineModeIsEnabled):
            text = "HF_HUB_OFFLINE is set, so nothing is asked of the Hub; unset it to pull"
        elif isinstance(error, httpx2.TransportError):
            text = (
                f"{where} cannot be reached ({type(error).__name__}); is there a network? What came"
                " is kept. Without one, bring the model on a disk: `turnpike models import` or"
                " `import-bundle`"
            )
        elif isinstance(error, OSError) and error.errno in _NO_ROOM:
            text = f"the disk is full: {error.strerror}. What came is kept; make room and try again"
        elif isinstance(error, OSError) and error.errno is None:
            text = f"{repo}: what the Hub sends is not as long as it said; try again later"
        elif isinstance(error, ValueError) and "too large" in str(error):
            text = f"{repo}: files of more than 50 GB cannot be pulled; choose another quantisation"
        if text is None:
            raise error
        raise PullFailed(text) from error


class _Sink:
    """What huggingface_hub writes to: a file that tells how long it is."""

    def __init__(self, raw: Any, tell: Callable[[int], None], keep_on: Callable[[], None]) -> None:
        self._raw = raw
        self._tell = tell
        self._keep_on = keep_on

    def length(self, bytes_max: int) -> int:
        """Bytes that are there, and where writing goes on; what is too long begins anew."""
        length: int = self._raw.seek(0, os.SEEK_END)
        if length > bytes_max:
            self._raw.seek(0)
            self._raw.truncate()
            length = 0
        self._tell(length)
        return length

    def write(self, data: bytes) -> int:
        self._keep_on()
        rest = memoryview(data)
        while rest:
            rest = rest[self._raw.write(rest) :]
        self._tell(self._raw.tell())
        return len(data)

    def seek(self, at: int, whence: int = os.SEEK_SET) -> int:
        return int(self._raw.seek(at, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def truncate(self, size: int | None = None) -> int:
        return int(self._raw.truncate(size))


def _status(status: int, repo: str, where: str) -> str:
    if status == 401:
        return f"{where} does not know the token that was given; make a new one, or leave it out"
    if status == 403:
        return f"the token that was given may not read {repo}"
    if status == 429:
        return f"{where} asks for patience (too many requests); try again in some minutes"
    return f"{where} answered with status {status}; try again later"


def _licence(card: Any, tags: list[str] | None) -> str | None:
    """What the repository's card says, else its tags."""
    said = card.get("license") if card is not None else None
    if isinstance(said, str) and said:
        return said[:100]
    found = [tag.partition(":")[2] for tag in tags or [] if tag.startswith("license:")]
    return found[0][:100] if found else None
