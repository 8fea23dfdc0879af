"""Which parameters an offer honours, given what its provider's wire sends on for each task."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from plugins.contract import ModelEntry, Offer
from plugins.tasks import (
    IMAGE_TO_IMAGE,
    SPEECH_TO_TEXT,
    TEXT_TO_IMAGE,
    TEXT_TO_SPEECH,
    TEXT_TO_VIDEO,
    ImageRequest,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)

_UPLOADS = frozenset({"image", "mask"})
_REQUESTS: dict[str, type[msgspec.Struct]] = {
    TEXT_TO_IMAGE: ImageRequest,
    IMAGE_TO_IMAGE: ImageRequest,
    TEXT_TO_VIDEO: VideoRequest,
    TEXT_TO_SPEECH: SpeechRequest,
    SPEECH_TO_TEXT: TranscriptionRequest,
}


def offers_of(
    provider: str, models: tuple[ModelEntry, ...], honours: Mapping[str, frozenset[str]]
) -> list[Offer]:
    """The offers for the configured models."""
    return [
        entry.offer(provider, supported_params=supported(entry.tasks, honours)) for entry in models
    ]


def supported(tasks: tuple[str, ...], honours: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The parameters that are honoured by every one of ``tasks`` whose requests can carry them."""
    any_task = frozenset[str]().union(*(honours[task] for task in tasks))
    return frozenset(
        name
        for name in any_task
        if all(name in honours[task] for task in tasks if name in _carried(task))
    )


def given(request: msgspec.Struct, *names: str) -> dict[str, Any]:
    """Those of the named parameters that carry a value, under their own names."""
    values = ((name, getattr(request, name)) for name in names)
    return {name: value for name, value in values if value is not UNSET and value is not None}


def check_tasks(
    title: str, models: tuple[ModelEntry, ...], honours: Mapping[str, frozenset[str]]
) -> None:
    """Raises ValueError for a model with a task that the provider does not serve here."""
    for entry in models:
        unknown = [task for task in entry.tasks if task not in honours]
        if unknown or not entry.tasks:
            raise ValueError(
                f"models: {entry.id!r} has the task {', '.join(unknown) or 'none'}; of {title} "
                f"these are served: tasks = {sorted(honours)}"
            )


def _carried(task: str) -> frozenset[str]:
    names = frozenset(_REQUESTS[task].__struct_fields__)
    return names - _UPLOADS if task == TEXT_TO_IMAGE else names
