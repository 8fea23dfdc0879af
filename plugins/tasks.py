"""The canonical forms of every task other than chat, and the union of all requests.

They are OpenAI's (openai/openai-openapi: ``CreateEmbeddingRequest``, ``CreateImageRequest``,
``CreateSpeechRequest``, ``CreateTranscriptionRequest``, ``CreateVideoRequest``), for rerank those
of Cohere and Jina, which vLLM and llama.cpp's server speak too, plus the parameters that the Hub's
tasks take (huggingface/huggingface_hub: ``negative_prompt``, ``guidance_scale``,
``num_inference_steps``, ``strength`` …). Tasks have the Hub's names. Absent fields stay absent.

Every request has ``task``, ``given_params``, ``answers``, ``output_tokens_limit`` and
``text_bytes``, as ``ChatRequest`` has: that is all that routing and the ledger ask of one.
"""

from functools import cache
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from plugins.chat import ChatRequest, Int64, ModelId, Object
from plugins.preferences import ROUTING_FIELDS, Routed, given_params

CONVERSATIONAL = "conversational"
FEATURE_EXTRACTION = "feature-extraction"
TEXT_RANKING = "text-ranking"
TEXT_TO_IMAGE = "text-to-image"
IMAGE_TO_IMAGE = "image-to-image"
TEXT_TO_VIDEO = "text-to-video"
SPEECH_TO_TEXT = "automatic-speech-recognition"
TEXT_TO_SPEECH = "text-to-speech"
TASKS = (
    CONVERSATIONAL,
    FEATURE_EXTRACTION,
    TEXT_RANKING,
    TEXT_TO_IMAGE,
    IMAGE_TO_IMAGE,
    TEXT_TO_VIDEO,
    SPEECH_TO_TEXT,
    TEXT_TO_SPEECH,
)

Text = Annotated[str, Meta(min_length=1, max_length=1_000_000)]
Prompt = Annotated[str, Meta(min_length=1, max_length=32_000)]
Dimension = Annotated[int, Meta(ge=16, le=16_384)]
Size = Annotated[str, Meta(pattern=r"^(auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})\Z")]
Steps = Annotated[int, Meta(ge=1, le=500)]
Scale = Annotated[float, Meta(ge=0, le=100)]
Token = Annotated[int, Meta(ge=0, le=2**31)]


class Media(msgspec.Struct, kw_only=True):
    """A picture, sound or video: its bytes, or where they can be fetched, or both.

    Between gateway and adapter only; never decoded from a request. ``media_type`` is empty where it
    is not known.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str = ""
    name: str = ""


class _TaskRequest(Routed, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What all have in common. ``model`` comes first, as proxies expect."""

    model: ModelId
    user: str | None | UnsetType = UNSET

    @property
    def stream(self) -> bool:
        """None of these is streamed."""
        return False

    def given_params(self) -> list[str]:
        """Names of the optional parameters that carry a value (not absent, not null)."""
        return given_params(self, _required(type(self)))

    def answers(self) -> int:
        """How many answers are asked for."""
        return 1

    def output_tokens_limit(self) -> int | None:
        """The most output tokens per answer that the caller wants; None: no limit is given."""
        return None

    def text_bytes(self) -> int:
        """Bytes of the text in it, as UTF-8."""
        return 0


@cache
def _required(kind: type[msgspec.Struct]) -> frozenset[str]:
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    return frozenset(required | ROUTING_FIELDS)


class EmbeddingRequest(_TaskRequest, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Texts (or texts as tokens) → one vector each."""

    input: Text | Annotated[list[Text | Token | list[Token]], Meta(min_length=1, max_length=65_536)]
    dimensions: Dimension | None | UnsetType = UNSET
    encoding_format: Literal["float", "base64"] | None | UnsetType = UNSET
    input_type: str | None | UnsetType = UNSET
    truncate: bool | None | UnsetType = UNSET

    @property
    def task(self) -> str:
        return FEATURE_EXTRACTION

    def text_bytes(self) -> int:
        return sum(len(each.encode()) for each in self.texts())

    def texts(self) -> list[str]:
        """The texts; none where tokens were given."""
        if isinstance(self.input, str):
            return [self.input]
        return [each for each in self.input if isinstance(each, str)]


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """A text to be scored, as an object."""

    text: Annotated[str, Meta(max_length=1_000_000)]


class RerankRequest(_TaskRequest, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A query and documents → how well each document answers the query.

    The adapter scores all of them; ``top_n`` and ``return_documents`` say what of it the gateway
    hands on.
    """

    query: Text
    documents: Annotated[
        list[Annotated[str, Meta(max_length=1_000_000)] | Document],
        Meta(min_length=1, max_length=10_000),
    ]
    top_n: Annotated[int, Meta(ge=1)] | None | UnsetType = UNSET
    return_documents: bool | None | UnsetType = UNSET
    truncate: bool | None | UnsetType = UNSET

    @property
    def task(self) -> str:
        return TEXT_RANKING

    def text_bytes(self) -> int:
        return len(self.query.encode()) + sum(len(each.encode()) for each in self.texts())

    def texts(self) -> list[str]:
        """The documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


class ImageRequest(_TaskRequest, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A prompt, and pictures to start from, → pictures.

    ``image`` and ``mask`` are set by the gateway from the upload, never by the JSON body.
    """

    prompt: Prompt
    n: Annotated[int, Meta(ge=1, le=10)] | None | UnsetType = UNSET
    size: Size | None | UnsetType = UNSET
    quality: str | None | UnsetType = UNSET
    style: str | None | UnsetType = UNSET
    background: str | None | UnsetType = UNSET
    moderation: str | None | UnsetType = UNSET
    output_format: Literal["png", "jpeg", "webp"] | None | UnsetType = UNSET
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None | UnsetType = UNSET
    response_format: Literal["url", "b64_json"] | None | UnsetType = UNSET
    input_fidelity: str | None | UnsetType = UNSET
    # Beyond OpenAI's API, as the Hub's tasks take them.
    seed: Int64 | None | UnsetType = UNSET
    negative_prompt: str | None | UnsetType = UNSET
    guidance_scale: Scale | None | UnsetType = UNSET
    num_inference_steps: Steps | None | UnsetType = UNSET
    strength: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    image: list[Media] | UnsetType = UNSET
    mask: Media | UnsetType = UNSET

    @property
    def task(self) -> str:
        return IMAGE_TO_IMAGE if self.image else TEXT_TO_IMAGE

    def answers(self) -> int:
        return self.n if isinstance(self.n, int) else 1

    def text_bytes(self) -> int:
        return len(self.prompt.encode())

    def pixels(self) -> tuple[int, int] | None:
        """Width and height, where they are given."""
        if not isinstance(self.size, str) or self.size == "auto":
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height)


class VideoRequest(_TaskRequest, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A prompt → a video. ``input_reference`` is set from the upload, never by the JSON body."""

    prompt: Prompt
    seconds: Annotated[str, Meta(pattern=r"^[0-9]{1,3}\Z")] | None | UnsetType = UNSET
    size: Size | None | UnsetType = UNSET
    seed: Int64 | None | UnsetType = UNSET
    negative_prompt: str | None | UnsetType = UNSET
    guidance_scale: Scale | None | UnsetType = UNSET
    num_inference_steps: Steps | None | UnsetType = UNSET
    num_frames: Annotated[int, Meta(ge=1, le=10_000)] | None | UnsetType = UNSET
    input_reference: Media | UnsetType = UNSET

    @property
    def task(self) -> str:
        return TEXT_TO_VIDEO

    def text_bytes(self) -> int:
        return len(self.prompt.encode())


class SpeechRequest(_TaskRequest, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Text → speech."""

    input: Annotated[str, Meta(min_length=1, max_length=100_000)]
    voice: str | None | UnsetType = UNSET
    instructions: str | None | UnsetType = UNSET
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None | UnsetType = UNSET
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None | UnsetType = UNSET

    @property
    def task(self) -> str:
        return TEXT_TO_SPEECH

    def text_bytes(self) -> int:
        return len(self.input.encode())


class TranscriptionRequest(
    _TaskRequest, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """Speech → text. ``file`` is set by the gateway from the upload."""

    file: Media
    language: str | None | UnsetType = UNSET
    prompt: str | None | UnsetType = UNSET
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] | None | UnsetType = (
        UNSET
    )
    temperature: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    timestamp_granularities: list[Literal["word", "segment"]] | None | UnsetType = UNSET

    @property
    def task(self) -> str:
        return SPEECH_TO_TEXT


TaskRequest = (
    EmbeddingRequest
    | RerankRequest
    | ImageRequest
    | VideoRequest
    | SpeechRequest
    | TranscriptionRequest
)
Request = ChatRequest | TaskRequest


class Embeddings(msgspec.Struct, kw_only=True):
    """One vector per text, in their order."""

    vectors: list[list[float]]


class Ranking(msgspec.Struct, kw_only=True):
    """How relevant each document is, between 0 and 1, in the order of the documents."""

    scores: list[float]


class Images(msgspec.Struct, kw_only=True):
    """The pictures; ``revised_prompts`` where the provider changed what was asked for."""

    images: list[Media]
    revised_prompts: list[str | None] = []


class Video(msgspec.Struct, kw_only=True):
    """The video."""

    video: Media


class Speech(msgspec.Struct, kw_only=True):
    """The sound."""

    audio: Media


class Transcript(msgspec.Struct, kw_only=True):
    """What was said. ``segments`` and ``words`` have OpenAI's fields (``start``, ``end``, ``text``
    or ``word``, in seconds), where the provider tells them apart.
    """

    text: str
    language: str | None = None
    duration_s: float | None = None
    segments: list[Object] | None = None
    words: list[Object] | None = None


Output = Embeddings | Ranking | Images | Video | Speech | Transcript

OUTPUT_OF: dict[str, type[Output]] = {
    FEATURE_EXTRACTION: Embeddings,
    TEXT_RANKING: Ranking,
    TEXT_TO_IMAGE: Images,
    IMAGE_TO_IMAGE: Images,
    TEXT_TO_VIDEO: Video,
    SPEECH_TO_TEXT: Transcript,
    TEXT_TO_SPEECH: Speech,
}
"""What each task other than chat ends with."""
