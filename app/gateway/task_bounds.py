"""The most that a call of a task other than chat can use, known before it is dispatched. Pure.

Text is bounded by its bytes, as in ``estimate.py``: a token of a byte-level vocabulary stands for
at least one byte, a character too, and providers count the one or the other. (A model that rewrites
text before it cuts it up can make a few rare ligatures longer.) Pictures and seconds are those that
are asked for. What no law bounds is bounded by what is published of models that are priced so; each
figure below says whose. Compute is a generous guess, as for chats.

A task's answer is whole or worthless, so the hold is all or nothing, except where compute is
priced: there a smaller hold, down to what such an answer may well take, is better than none.
"""

import math

import msgspec
from msgspec.structs import replace

from app.billing.rating import ceiling_of
from app.gateway.estimate import TEMPLATE_TOKENS_PER_CALL, TOKENS_PER_ATTACHMENT, Bounds
from app.gateway.sound_length import sound_ms_max, unknown_sound_ms_max
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from plugins.contract import Offer, Usage
from plugins.tasks import (
    EmbeddingRequest,
    ImageRequest,
    RerankRequest,
    SpeechRequest,
    TaskRequest,
    TranscriptionRequest,
    VideoRequest,
)

TOKENS_PER_TEXT = 32  # around each text to embed: begin and end marks, a prefix such as "query: "
# Around each pair of query and document: marks, and words of the model's own that ask for a verdict
# (Qwen3-Reranker's are about 80 tokens).
TOKENS_PER_PAIR = 192

# A picture of 1024 × 1024 is up to 7,024 tokens, one of 3584 × 2048 up to 12,329 (OpenAI's
# gpt-image models); Google's are 1,120 to 2,520.
TOKENS_PER_PICTURE = 8_192
PIXELS_PER_TOKEN = 1_024  # of which more comes on top

# Spoken text: OpenAI's gpt-4o-mini-tts makes about 1,250 tokens a minute, so this is 0.4 s a byte,
# longer than digits that are read out one by one.
SPOKEN_TOKENS_PER_BYTE = 8

# Sound: Google counts 32 tokens a second, OpenAI about 17 together with the text; models of
# Whisper's kind hear 50 frames a second.
HEARD_TOKENS_PER_S = 50
WRITTEN_TOKENS_PER_S = 20  # speech is some four words a second
WRITTEN_TOKENS_MIN = 512
HEARD_MS_MIN = 15_000  # providers charge for 10 or 15 s at least
HEARD_MS_UNKNOWN = 2 * 3_600_000  # a recording that is only named, not there

VIDEO_S_DEFAULT = 12  # the longest that a request without a length is answered with: 4 to 12
FRAMES_PER_S_MIN = 6
VIDEO_PIXELS_DEFAULT = 1920 * 1080
# ByteDance's Seedance: width × height × frames / 1024 tokens, at 24 frames a second.
VIDEO_PIXELS_PER_TOKEN = 32  # a second, which allows for 32 frames

_STEPS_USUAL = 50
_MS = 1_000_000
_S = 1_000 * _MS


class Work(msgspec.Struct, frozen=True):
    """Compute in nanoseconds: of any call of a task, and of each unit of it."""

    fixed_ns: int
    per_unit_ns: int

    def of(self, units: int) -> int:
        """The compute of so many units."""
        return self.fixed_ns + self.per_unit_ns * units


# By task: surely enough, and what it may well take. Units: a token, a picture of 50 steps, a
# second of video, a byte to speak, a second to listen to.
COMPUTE: dict[type, tuple[Work, Work]] = {
    EmbeddingRequest: (Work(30 * _S, 20 * _MS), Work(1 * _S, 1 * _MS)),
    RerankRequest: (Work(30 * _S, 20 * _MS), Work(1 * _S, 1 * _MS)),
    ImageRequest: (Work(60 * _S, 60 * _S), Work(5 * _S, 10 * _S)),
    VideoRequest: (Work(300 * _S, 120 * _S), Work(30 * _S, 20 * _S)),
    SpeechRequest: (Work(30 * _S, 100 * _MS), Work(1 * _S, 10 * _MS)),
    TranscriptionRequest: (Work(30 * _S, 1 * _S), Work(1 * _S, 100 * _MS)),
}


def task_bounds(request: TaskRequest, body_bytes: int, offers: tuple[Offer, ...]) -> Bounds:
    """Bound the cost of a request over ``offers``; all amounts are nano-USD.

    ``body_bytes`` is the length of all that was uploaded.
    """
    most = usage_max(request, body_bytes)
    generous, fair = (work.of(_units(request, most)) for work in COMPUTE[type(request)])
    amount = comfortable = 0
    for offer in offers:
        if offer.price.free:
            continue
        within = _within_context(request, most, offer)
        by_compute = offer.price.compute_per_second != 0
        for_sure = ceiling_of(replace(within, compute_ns=generous), offer.price)
        amount = max(amount, for_sure)
        if by_compute:
            for_sure = ceiling_of(replace(within, compute_ns=fair), offer.price)
        comfortable = max(comfortable, for_sure)
    amount = min(amount, AMOUNT_NANO_USD_MAX)
    return Bounds(
        amount_nano_usd=amount,
        comfortable_nano_usd=min(comfortable, amount),
        floor_nano_usd=min(comfortable, amount),
        input_tokens=most.input_tokens + most.audio_input_tokens,
    )


def usage_max(request: TaskRequest, body_bytes: int) -> Usage:
    """What a request can use at most, compute aside, in the sense of ``ceiling_of``."""
    if isinstance(request, EmbeddingRequest):
        return Usage(input_tokens=sum(tokens_of_texts(request)))
    if isinstance(request, RerankRequest):
        return Usage(input_tokens=sum(tokens_of_pairs(request)))
    if isinstance(request, ImageRequest):
        return _of_images(request)
    if isinstance(request, VideoRequest):
        return _of_video(request)
    if isinstance(request, SpeechRequest):
        spoken = _bytes(request.input)
        text = spoken + _bytes(request.instructions)
        return Usage(
            input_tokens=text + TEMPLATE_TOKENS_PER_CALL,
            audio_output_tokens=_slowed(spoken * SPOKEN_TOKENS_PER_BYTE, request.speed)
            + TEMPLATE_TOKENS_PER_CALL,
            characters=text,
        )
    return _of_transcript(request, body_bytes)


def tokens_of_texts(request: EmbeddingRequest) -> list[int]:
    """An upper bound of the tokens of each text; tokens that were given are counted."""
    given = request.input
    if isinstance(given, str):
        return [_bytes(given) + TOKENS_PER_TEXT]
    found = [
        (_bytes(text) if isinstance(text, str) else len(text)) + TOKENS_PER_TEXT
        for text in given
        if not isinstance(text, int)
    ]
    bare = sum(isinstance(token, int) for token in given)  # together one text
    return [*found, bare + TOKENS_PER_TEXT] if bare else found


def tokens_of_pairs(request: RerankRequest) -> list[int]:
    """An upper bound of the tokens of each document, with the query that is read beside it."""
    query = _bytes(request.query) + TOKENS_PER_PAIR
    return [query + _bytes(text) for text in request.texts()]


def heard_ms_max(request: TranscriptionRequest, body_bytes: int) -> int:
    """How much sound a transcription can be charged for, in whole seconds as milliseconds."""
    file = request.file
    if file.data is not None:
        length = sound_ms_max(file.data)
    else:
        length = max(HEARD_MS_UNKNOWN, unknown_sound_ms_max(body_bytes))
    return -(-max(length, HEARD_MS_MIN) // 1000) * 1000


def video_s_max(request: VideoRequest) -> int:
    """The seconds of video that a request can be charged for."""
    asked = int(request.seconds) if isinstance(request.seconds, str) else 0
    if isinstance(request.num_frames, int):
        by_frames = -(-request.num_frames // FRAMES_PER_S_MIN)
        # Frames are a wish that not all follow: then it is the usual length.
        return max(asked or VIDEO_S_DEFAULT, by_frames)
    return asked or VIDEO_S_DEFAULT


def _of_images(request: ImageRequest) -> Usage:
    given = len(request.image) if isinstance(request.image, list) else 0
    given += request.mask is not msgspec.UNSET
    text = _bytes(request.prompt) + _bytes(request.negative_prompt)
    tokens = TOKENS_PER_PICTURE + _pixels(request.size) // PIXELS_PER_TOKEN
    return Usage(
        input_tokens=text + TEMPLATE_TOKENS_PER_CALL + given * TOKENS_PER_ATTACHMENT,
        output_tokens=tokens * request.answers(),
        images=request.answers(),
    )


def _of_video(request: VideoRequest) -> Usage:
    seconds = video_s_max(request)
    given = int(request.input_reference is not msgspec.UNSET)
    text = _bytes(request.prompt) + _bytes(request.negative_prompt)
    size = _pixels(request.size) or VIDEO_PIXELS_DEFAULT
    return Usage(
        input_tokens=text + TEMPLATE_TOKENS_PER_CALL + given * TOKENS_PER_ATTACHMENT,
        output_tokens=seconds * -(-size // VIDEO_PIXELS_PER_TOKEN),
        video_ms=seconds * 1000,
    )


def _of_transcript(request: TranscriptionRequest, body_bytes: int) -> Usage:
    heard = heard_ms_max(request, body_bytes)
    seconds = heard // 1000
    return Usage(
        input_tokens=_bytes(request.prompt) + TEMPLATE_TOKENS_PER_CALL,
        audio_input_tokens=seconds * HEARD_TOKENS_PER_S,
        output_tokens=seconds * WRITTEN_TOKENS_PER_S + WRITTEN_TOKENS_MIN,
        audio_ms=heard,
    )


def _within_context(request: TaskRequest, most: Usage, offer: Offer) -> Usage:
    """A text that is longer than the model's context is cut off or refused."""
    context = offer.context_length
    if context is None:
        return most
    if isinstance(request, EmbeddingRequest):
        lengths = tokens_of_texts(request)
    elif isinstance(request, RerankRequest):
        lengths = tokens_of_pairs(request)
    else:
        return most
    return replace(most, input_tokens=sum(min(each, context) for each in lengths))


def _units(request: TaskRequest, most: Usage) -> int:
    """What the task's compute grows with; see ``COMPUTE``."""
    if isinstance(request, ImageRequest | VideoRequest):
        steps = request.num_inference_steps
        times = -(-steps // _STEPS_USUAL) if isinstance(steps, int) else 1
        return times * (most.images or most.video_ms // 1000)
    if isinstance(request, EmbeddingRequest | RerankRequest):
        return most.input_tokens
    return most.characters or most.audio_ms // 1000


def _bytes(text: object) -> int:
    return len(text.encode()) if isinstance(text, str) else 0


def _pixels(size: object) -> int:
    """Of a size such as 1024x1536; 0 where none is given."""
    if not isinstance(size, str) or size == "auto":
        return 0
    width, _, height = size.partition("x")
    return int(width) * int(height)


def _slowed(tokens: int, speed: object) -> int:
    """Speech at half the speed is twice as long."""
    return math.ceil(tokens / min(speed, 1)) if isinstance(speed, float) else tokens
