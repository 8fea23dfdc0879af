"""Pictures that a request names in place of uploading them: ``{"image_url": …}``, a ``data:`` URL
or one on the web (openai/openai-openapi, ``ImageRefParam``).
"""

import base64
import binascii
import re
from typing import Any

from app.errors import InvalidRequest
from plugins.tasks import Media

URL_LENGTH_MAX = 8192
_DATA_URL = re.compile(
    r"data:(image/[a-z0-9.+-]{1,64})?(?:;[a-z0-9=-]{1,64})*;base64,", re.IGNORECASE
)


def picture_of(found: Any, param: str) -> Media:
    """The picture that a reference names; one on the web is read later, by the provider or its
    adapter. Raises InvalidRequest.
    """
    url = found.get("image_url") if isinstance(found, dict) else found
    if isinstance(url, dict):
        url = url.get("url")
    if isinstance(found, dict) and found.get("file_id") is not None:
        raise InvalidRequest(
            "Files are not kept here: send the picture itself, or an 'image_url'.",
            param=f"{param}.file_id",
        )
    if not isinstance(url, str) or not url:
        raise InvalidRequest("A picture is a file, or an object with an 'image_url'.", param=param)
    head = _DATA_URL.match(url[:512])
    if head is not None:
        try:
            data = base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest("The data: URL is not base64.", param=param) from error
        if not data:
            raise InvalidRequest("The data: URL is empty.", param=param)
        return Media(data=data, media_type=(head[1] or "").lower())
    if len(url) > URL_LENGTH_MAX or not url.startswith(("https://", "http://")):
        raise InvalidRequest(
            "'image_url' is a data: URL of a picture in base64, or begins with https://.",
            param=param,
        )
    return Media(url=url)
