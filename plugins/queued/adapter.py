"""The adapter of every provider that takes work in and has it done later."""

import asyncio
from collections.abc import AsyncGenerator

from msgspec.structs import replace

from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    InferenceCall,
    Offer,
    Produced,
    Started,
    Toolbox,
    Usage,
    UsageReport,
)
from plugins.http.client import Client, HttpRequest
from plugins.queued.media import result, with_bytes, with_result_bytes
from plugins.queued.params import check_tasks, offers_of
from plugins.queued.polling import ASK_S_MAX, Limits, Pace, Polling
from plugins.queued.work import Answer, Pending, Reply, Ticket, Wire
from plugins.tasks import (
    ImageRequest,
    Images,
    Media,
    Output,
    Request,
    Speech,
    Transcript,
    TranscriptionRequest,
)

# What an abandoned call may still take to tell the provider so.
CANCEL_S_MAX = 2.0
REQUEST_ID_LENGTH_MAX = 200
# Encoding more than this would keep the event loop from others for milliseconds.
_ENCODED_AT_ONCE_MAX = 256 * 1024


class QueuedAdapter:
    """One provider. See ``plugins.contract.Adapter`` for the rules it keeps.

    Work that is abandoned before its end, be it closed, cancelled or past its deadline, is
    cancelled upstream where the provider can do that, within ``CANCEL_S_MAX``; whatever comes of
    that, closing succeeds. What is abandoned while it is being handed in has no id to cancel it by;
    the submissions of providers that know one carry a deadline.
    """

    def __init__(self, wire: Wire, client: Client, toolbox: Toolbox, pace: Pace) -> None:
        """Raises ValueError for a configured model with a task that is not served here."""
        check_tasks(wire.title, toolbox.models, wire.honours)
        self._wire = wire
        self._client = client
        self._toolbox = toolbox
        self._pace = pace
        self._id_header = (toolbox.request_id_header or "").lower()

    def offers(self) -> list[Offer]:
        """The configured models, with the parameters that all of a model's tasks honour."""
        return offers_of(self._toolbox.provider_id, self._toolbox.models, self._wire.honours)

    async def start(self) -> None:
        """Connections are opened by the first call."""
        await self._client.start()

    async def reach(self) -> None:
        """See ``plugins.contract.Reaching``."""
        await self._client.reach()

    async def close(self) -> None:
        """Drop all connections."""
        await self._client.close()

    async def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """``Started`` once the provider has taken the work in, the result once it is done."""
        began = asyncio.get_running_loop().time()
        by = began + call.deadline_s
        ticket, upstream_id = await self._submit(call, min(by, began + call.first_event_s))
        going_on = isinstance(ticket.progress, Pending)
        try:
            yield Started(upstream_id)
            compute_s = None if call.compute_ns_max is None else call.compute_ns_max / 1e9
            polling = Polling(
                ticket,
                self._ask,
                lambda reply: self._wire.refusal(reply, call.api_key),
                self._pace,
                Limits(by=by, compute_s=compute_s),
            )
            outcome = await polling.outcome()
            going_on = False
            if isinstance(outcome, AdapterError):
                raise outcome
            usage = _with_compute(outcome.usage, call, polling.compute_ns())
            output = await self._delivered(outcome, call, by)
            yield Produced(output)
            yield UsageReport(usage)
        finally:
            if going_on and ticket.cancel is not None:
                await self._cancel(ticket.cancel)

    async def _submit(self, call: InferenceCall, by: float) -> tuple[Ticket, str]:
        """Hand the work in; the ticket, and the id under which the provider bills it."""
        call = await self._with_bytes(call, by)
        if _uploaded_bytes(call.request) > _ENCODED_AT_ONCE_MAX:
            request = await asyncio.to_thread(self._wire.submission, call)
        else:
            request = self._wire.submission(call)
        exchange, body = await self._client.fetch(
            request, by=by, silence_s=max(call.first_event_s, call.idle_s)
        )
        reply = Reply(exchange, body)
        if not reply.is_good:
            raise self._wire.refusal(reply, call.api_key)
        ticket = self._wire.accepted(reply, call)
        return ticket, self._billed_id(reply) or ticket.id

    async def _with_bytes(self, call: InferenceCall, by: float) -> InferenceCall:
        """The call with the bytes of all its media: those that only have a URL are fetched."""
        try:
            async with asyncio.timeout_at(by):
                request = await with_bytes(call.request, self._toolbox.fetch)
        except TimeoutError as error:
            raise AdapterError(
                FailureKind.BAD_REQUEST, "The URLs in the request were not read in time."
            ) from error
        return call if request is call.request else replace(call, request=request)

    def _billed_id(self, reply: Reply) -> str:
        found = (reply.header(self._id_header) or "") if self._id_header else ""
        good = len(found) <= REQUEST_ID_LENGTH_MAX and found.isascii() and found.isprintable()
        return found.strip() if good else ""

    async def _ask(self, request: HttpRequest, by: float) -> Reply:
        return Reply(*await self._client.fetch(request, by=by, silence_s=ASK_S_MAX))

    async def _cancel(self, request: HttpRequest) -> None:
        """Tell the provider that nobody waits any more. The call has ended either way."""
        by = asyncio.get_running_loop().time() + CANCEL_S_MAX
        try:
            exchange, _ = await self._client.fetch(request, by=by, silence_s=CANCEL_S_MAX)
            status = str(exchange.status)
        except AdapterError as error:
            status = error.kind.value
        self._toolbox.log.debug("abandoned work was cancelled: %s", status)

    async def _delivered(self, answer: Answer, call: InferenceCall, by: float) -> Output:
        """The output in the form that was asked for. A failure carries what the work used."""
        try:
            async with asyncio.timeout_at(by):
                return await self._in_form(answer, call)
        except TimeoutError as error:
            raise AdapterError(
                FailureKind.TIMEOUT,
                "the provider took too long",
                detail="reading the result",
                usage=answer.usage,
            ) from error
        except AdapterError as error:
            error.usage = answer.usage
            raise

    async def _in_form(self, answer: Answer, call: InferenceCall) -> Output:
        """Bytes of speech, and of pictures where the caller wants those; otherwise the provider's
        URLs, for clients to fetch."""
        output, fetch = answer.output, self._toolbox.fetch
        if isinstance(output, Speech):
            return Speech(audio=await with_result_bytes(output.audio, fetch))
        if isinstance(output, Images) and _wants_bytes(call):
            pictures = [await with_result_bytes(each, fetch) for each in output.images]
            return Images(images=pictures, revised_prompts=output.revised_prompts)
        if isinstance(output, Transcript) and answer.text_url:
            from_url = await with_result_bytes(result(answer.text_url), fetch)
            return replace(output, text=(from_url.data or b"").decode("utf-8", "replace").strip())
        return output


def _uploaded_bytes(request: Request) -> int:
    media: list[Media] = []
    if isinstance(request, ImageRequest):
        media = [*(request.image or ()), *([request.mask] if request.mask else [])]
    elif isinstance(request, TranscriptionRequest):
        media = [request.file]
    return sum(len(each.data or b"") for each in media)


def _wants_bytes(call: InferenceCall) -> bool:
    return isinstance(call.request, ImageRequest) and call.request.response_format == "b64_json"


def _with_compute(usage: Usage, call: InferenceCall, seen_ns: int) -> Usage:
    """The usage with its compute time where that is what the offer is priced by: what the provider
    says, or else what was seen of it, within what the hold pays for."""
    if call.compute_ns_max is None or usage.compute_ns:
        return usage
    return replace(usage, compute_ns=min(seen_ns, call.compute_ns_max), estimated=True)
