"""Who a request to AWS is from: a signature made with an access key, or a Bedrock API key.

AWS Signature Version 4 as its documentation describes it; AWS's published test vectors are in the
tests. The path is encoded once more for the signature, as for every service but S3.
"""

import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote

import msgspec

from plugins.contract import AdapterError, FailureKind

_ALGORITHM = "AWS4-HMAC-SHA256"
Headers = tuple[tuple[str, str], ...]


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs. ``session_token`` comes with temporary ones."""

    key_id: str
    secret: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "AccessKey(…)"


class BearerKey(msgspec.Struct, frozen=True):
    """A Bedrock API key, short- or long-term, that is sent as it is."""

    key: str

    def __repr__(self) -> str:
        return "BearerKey(…)"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature is good for."""

    region: str
    service: str = "bedrock"


def key_of(api_key: str | None) -> AccessKey | BearerKey | None:
    """Read ``ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]``, or a Bedrock API key.

    A colon tells them apart: API keys are base64 (``ABSK…``, ``bedrock-api-key-…``), which has
    none. Raises AdapterError (AUTH) for a pair with an empty half.
    """
    if not api_key:
        return None
    if ":" not in api_key:
        return BearerKey(api_key)
    key_id, secret, *token = api_key.split(":", 2)
    if not key_id or not secret:
        raise AdapterError(
            FailureKind.AUTH,
            "the appliance's credentials for the provider are incomplete",
            detail="expected ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]",
        )
    return AccessKey(key_id=key_id, secret=secret, session_token=token[0] if token else None)


def sign(
    key: AccessKey,
    scope: Scope,
    now: datetime,
    *,
    method: str,
    host: str,
    path: str,
    headers: Headers,
    body: bytes,
) -> Headers:
    """The headers that say who a request is from: its time, its token, its signature.

    ``path`` is as it is sent, already encoded, without a query; ``host`` has the port where it is
    not the scheme's own; ``headers`` are signed too, their names in lower case; ``now`` is in UTC.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    added: Headers = (("x-amz-date", moment),)
    if key.session_token:
        added = (*added, ("x-amz-security-token", key.session_token))
    signed = sorted((*headers, ("host", host), *added))
    names = ";".join(name for name, _ in signed)
    canonical = "\n".join(
        (
            method,
            quote(path, safe="/~"),
            "",
            *(f"{name}:{' '.join(value.split())}" for name, value in signed),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    reach = f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    told = "\n".join((_ALGORITHM, moment, reach, hashed))
    secret = f"AWS4{key.secret}".encode()
    for part in reach.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, told.encode(), "sha256").hex()
    authorization = (
        f"{_ALGORITHM} Credential={key.key_id}/{reach}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return (*added, ("authorization", authorization))
