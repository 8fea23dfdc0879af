"""Whether a call waits for a model that must be loaded first: ``X-Wait-For-Model``, with the name
and the meaning that it has at Hugging Face, where the answer that does not wait is 503 with an
``estimated_time``. Without it, calls wait: that is what OpenAI's clients expect.
"""

from litestar.types import HTTPScope

from app.errors import InvalidRequest

_NAME = b"x-wait-for-model"
_VALUES = {b"true": True, b"1": True, b"false": False, b"0": False}


def waits_for_model(scope: HTTPScope) -> bool:
    """What the client asked for. Raises InvalidRequest for a value that is neither."""
    for name, value in scope["headers"]:
        if name == _NAME:
            found = _VALUES.get(value.strip().lower())
            if found is None:
                raise InvalidRequest(
                    "X-Wait-For-Model is 'true' or 'false'.", param="X-Wait-For-Model"
                )
            return found
    return True
