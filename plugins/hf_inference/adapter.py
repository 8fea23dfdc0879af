"""Adapter over HF Inference, Hugging Face's own serverless inference.

Chats go the way of every OpenAI-compatible server, under the model's own path; the other tasks have
payloads of their own. What is billed is time on the hardware, told in ``x-compute-time``.
"""

import asyncio
from collections.abc import AsyncGenerator

from msgspec.structs import replace

from plugins.chat import ChatRequest
from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    InferenceCall,
    ModelEntry,
    Offer,
    Produced,
    Started,
    Toolbox,
    Usage,
    UsageReport,
)
from plugins.hf_inference import answers, refusals, wire
from plugins.http.client import Client, Exchange, HttpRequest
from plugins.openai_compatible.adapter import OpenAICompatibleAdapter
from plugins.openai_compatible.preset import (
    LOGPROBS,
    PENALTIES,
    STRUCTURED_OUTPUTS,
    Preset,
    params,
)
from plugins.openai_compatible.wire import compute_seconds, with_compute
from plugins.queued.media import with_bytes
from plugins.queued.params import check_tasks, supported
from plugins.tasks import (
    CONVERSATIONAL,
    SPEECH_TO_TEXT,
    ImageRequest,
    Request,
    TranscriptionRequest,
)

# What serves chats there is text-generation-inference.
CHATS = Preset(
    name="hf-inference",
    title="HF Inference",
    listing=None,
    params=params(*PENALTIES, *LOGPROBS, "seed", STRUCTURED_OUTPUTS),
    limit_name="max_tokens",
)
# Encoding more than this would keep the event loop from others for milliseconds.
_ENCODED_AT_ONCE_MAX = 256 * 1024


class HfInferenceAdapter(OpenAICompatibleAdapter):
    """One provider. See ``plugins.contract.Adapter`` for the rules it keeps."""

    def __init__(self, client: Client, toolbox: Toolbox) -> None:
        """Raises ValueError for a configured model with a task that is not served here, or with
        chats and another one."""
        others = tuple(entry for entry in toolbox.models if entry.tasks != (CONVERSATIONAL,))
        for entry in others:
            if CONVERSATIONAL in entry.tasks:
                raise ValueError(f"models: {entry.id!r} has chats among other tasks")
        check_tasks(CHATS.title, others, wire.HONOURS)
        super().__init__(client, toolbox, CHATS)

    def offer_of(self, entry: ModelEntry) -> Offer:
        """The offer for a model, with the parameters that all of its tasks honour."""
        if CONVERSATIONAL in entry.tasks:
            return super().offer_of(entry)
        known = supported(entry.tasks, wire.HONOURS)
        return entry.offer(self._toolbox.provider_id, supported_params=known)

    def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """See the rules of the contract."""
        if isinstance(call.request, ChatRequest):
            return super().infer(call)
        return self._perform(call)

    def _request(self, call: InferenceCall) -> HttpRequest:
        """A chat's request, with a JSON schema in the form that this server knows
        (huggingface_hub, ``HFInferenceConversational``)."""
        asked = call.chat
        said = asked.response_format
        inner = said.get("json_schema") if isinstance(said, dict) else None
        if isinstance(said, dict) and said.get("type") == "json_schema":
            schema = inner.get("schema") if isinstance(inner, dict) else None
            if not isinstance(schema, dict):
                raise AdapterError(
                    FailureKind.BAD_REQUEST,
                    "response_format.json_schema.schema: missing",
                    param="response_format",
                )
            form = {"type": "json_object", "value": schema}
            call = replace(call, request=replace(asked, response_format=form))
        target = f"{wire.path_of(call.upstream_id)}/v1/chat/completions"
        return replace(super()._request(call), target=target)

    def _refusal(self, exchange: Exchange, body: bytes, key: str | None) -> AdapterError:
        return refusals.refusal(exchange.status, exchange.header, body, key)

    async def _perform(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        seconds_max = call.deadline_s
        if call.compute_ns_max is not None:
            seconds_max = min(seconds_max, call.compute_ns_max / 1e9)
        by = began + min(call.first_event_s, seconds_max)
        request = await self._prepared(call, by)
        exchange = await self._client.stream(
            request, by=by, silence_s=max(call.first_event_s, call.idle_s)
        )
        try:
            if 200 <= exchange.status < 300:
                yield Started(exchange.id_in(self._id_header) if self._id_header else "")
            body = await exchange.read_all(by)
        finally:
            await exchange.close()
        if not 200 <= exchange.status < 300:
            raise self._refusal(exchange, body, call.api_key)
        exchange.check_plain()
        output, usage = answers.read(body, exchange.header, call)
        if call.request.task == SPEECH_TO_TEXT and (warned := answers.warnings_in(body)):
            self._toolbox.log.debug("the provider warns: %s", warned)
        yield Produced(output)
        yield UsageReport(_with_compute(usage, call, exchange, loop.time() - began))

    async def _prepared(self, call: InferenceCall, by: float) -> HttpRequest:
        """The request, once the bytes of its media are there."""
        try:
            async with asyncio.timeout_at(by):
                request = await with_bytes(call.request, self._toolbox.fetch)
        except TimeoutError as error:
            raise AdapterError(
                FailureKind.BAD_REQUEST, "The URLs in the request were not read in time."
            ) from error
        call = replace(call, request=request)
        if _uploaded_bytes(request) > _ENCODED_AT_ONCE_MAX:
            return await asyncio.to_thread(wire.request_of, call)
        return wire.request_of(call)


def _uploaded_bytes(request: Request) -> int:
    if isinstance(request, TranscriptionRequest):
        return len(request.file.data or b"")
    if isinstance(request, ImageRequest) and isinstance(request.image, list):
        return sum(len(each.data or b"") for each in request.image)
    return 0


def _with_compute(usage: Usage, call: InferenceCall, exchange: Exchange, wall_s: float) -> Usage:
    """The usage with the time on the hardware: what is told of it, or, where that is what the offer
    is priced by, what was seen of it."""
    told = compute_seconds(exchange.header("x-compute-time"), exchange.header("x-total-time"))
    if told is None and call.compute_ns_max is None:
        return usage
    return with_compute(usage, told, round(wall_s * 1e9))
