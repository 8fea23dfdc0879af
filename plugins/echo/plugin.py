"""The smallest provider: it answers with the last user message, word by word."""

import asyncio
from collections.abc import AsyncGenerator

from plugins.chat import AssistantMessage, ChatRequest, Choice, ChoiceDelta, Delta
from plugins.contract import (
    CONTRACT_VERSION,
    Chunk,
    Completion,
    Event,
    InferenceCall,
    Offer,
    Plugin,
    ProviderSettings,
    Toolbox,
    Usage,
    UsageReport,
)

HONOURED = frozenset({"max_tokens", "max_completion_tokens", "stream", "stream_options", "user"})


class EchoSettings(ProviderSettings, frozen=True, kw_only=True):
    """``word_delay_ms`` is the pause before each word, to have something to watch."""

    word_delay_ms: int = 0


class EchoAdapter:
    """A token is a word here, so what a call costs can be counted by hand."""

    def __init__(self, settings: EchoSettings, toolbox: Toolbox) -> None:
        self._delay_s = settings.word_delay_ms / 1000
        self._toolbox = toolbox

    def offers(self) -> list[Offer]:
        """Every configured model, priced as configured."""
        provider = self._toolbox.provider_id
        return [
            entry.offer(provider, supported_params=HONOURED, abort_stops_billing=True)
            for entry in self._toolbox.models
        ]

    async def start(self) -> None:
        """Nothing to open."""

    async def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """Stream one word per chunk, or give all of them at once; then say what was used."""
        words = _last_user_text(call.chat).split()
        limit = call.chat.output_tokens_limit()
        said = words if limit is None else words[:limit]
        finish = "stop" if len(said) == len(words) else "length"
        for n, word in enumerate(said if call.stream else ()):
            await asyncio.sleep(self._delay_s)
            if call.stop is not None and call.stop.is_set():
                said, finish = said[:n], "length"
                break
            delta = Delta(role="assistant", content=word) if n == 0 else Delta(content=f" {word}")
            yield Chunk([ChoiceDelta(index=0, delta=delta)])
        if call.stream:
            yield Chunk([ChoiceDelta(index=0, delta=Delta(), finish_reason=finish)])
        else:
            await asyncio.sleep(self._delay_s * len(said))
            message = AssistantMessage(role="assistant", content=" ".join(said))
            yield Completion([Choice(index=0, message=message, finish_reason=finish)])
        yield UsageReport(Usage(input_tokens=_count(call.chat), output_tokens=len(said)))

    async def close(self) -> None:
        """Nothing to free."""


def _count(request: ChatRequest) -> int:
    return sum(len(m.content.split()) for m in request.messages if isinstance(m.content, str))


def _last_user_text(request: ChatRequest) -> str:
    said = [m.content for m in request.messages if m.role == "user" and isinstance(m.content, str)]
    return said[-1] if said else "nothing was said"


PLUGIN = Plugin(
    name="echo",
    title="Echo",
    contract_version=CONTRACT_VERSION,
    needs_key=False,
    settings=EchoSettings,
    build=EchoAdapter,
)
