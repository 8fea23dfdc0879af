"""A request on its way in: checked, tokenised, and given its samplers."""

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from local_runtime.engines.contract import EngineRequest, RequestRefused
from local_runtime.engines.llama import request
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.native import Model
from local_runtime.engines.llama.placing import Placing
from local_runtime.engines.llama.prompt import PromptBuilder
from local_runtime.engines.llama.sampling import Sampler, spec_of
from local_runtime.engines.llama.slots import Sequence, Work
from local_runtime.engines.llama.views import NO_VIEWS
from local_runtime.engines.llama.voice import Voice
from plugins.chat import ChatRequest
from plugins.contract import FailureKind

if TYPE_CHECKING:  # libmtmd is loaded only where a projector is
    from local_runtime.engines.llama.media import PictureReader


class Intake:
    """Turns requests into work for one model and context."""

    def __init__(
        self,
        model: Model,
        template: ChatTemplate,
        *,
        context_length: int,
        cells: int,
        sequences_max: int,
        reader: "PictureReader | None" = None,
    ) -> None:
        """``reader`` None: the model reads text only."""
        self._model = model
        self._reader = reader
        self._prompts = PromptBuilder(model, template)
        self._context_length = context_length
        self._cells = cells
        self._sequences_max = sequences_max
        self._next_number = 0

    def take(self, asked: EngineRequest) -> tuple[Work, list[Voice]]:
        """The work, and a voice for each of its sequences. Raises RequestRefused."""
        chat = asked.chat
        if chat is None:
            raise RequestRefused(
                "This model holds conversations; it makes no embeddings and ranks no documents.",
                param="model",
            )
        request.check(chat, sequences_max=self._sequences_max)
        if self._reader is None:
            return self._take(asked, chat, None)
        placing = Placing(chat)
        try:
            placing.read(self._reader, asked.media)
            return self._take(asked, chat, placing)
        except RequestRefused:
            placing.close()
            raise

    def _take(
        self, asked: EngineRequest, chat: ChatRequest, placing: Placing | None
    ) -> tuple[Work, list[Voice]]:
        text = self._prompts.text(chat if placing is None else placing.chat)
        sampling = spec_of(
            chat,
            vocab_size=self._model.vocab_size,
            end_tokens=self._model.end_tokens,
            grammar=text.manner.grammar,
        )
        least = text.size_bytes // self._model.piece_bytes_max
        if least > self._context_length:  # tokenising that much would hold everybody up
            raise too_long(f"at least {least}", self._context_length)
        prompt = self._prompts.tokens(text, placing)
        if len(prompt) >= self._context_length:
            raise too_long(f"{len(prompt)}", self._context_length)
        views = NO_VIEWS if placing is None else placing.views(prompt)
        count = chat.answers()
        # All answers of one request must fit at once: it could never make room for itself.
        room = min(self._context_length - len(prompt), (self._cells - len(prompt)) // count)
        tokens_max = len(prompt) + min(chat.output_tokens_limit() or room, room)
        work = Work(
            request_id=asked.request_id,
            number=self._next_number,
            prompt=np.asarray(prompt, dtype=np.int32),
            sequences=[
                Sequence(index, list(prompt), tokens_max, views=views) for index in range(count)
            ],
            compute_ns_max=asked.compute_ns_max,
            fairness_key=asked.fairness_key,
            scope=asked.cache_scope,
            adapter=asked.adapter,
            seeded=isinstance(chat.seed, int),
            views=views,
            looked_ns=0 if placing is None else placing.took_ns,
        )
        self._next_number += 1
        said = [token for token in prompt if token >= 0] if views else prompt
        stops = list(request.stops(chat))
        # The voice starts grammars: some hold only from a later point of the answer.
        manner = text.manner.under(sampling.grammar)
        sampling = replace(sampling, grammar=None)
        voices: list[Voice] = []
        try:
            for index in range(count):
                sampler = Sampler(
                    self._model, sampling, said, index=index, window=self._context_length
                )
                try:
                    voices.append(Voice(self._model, sampler, stops, manner))
                except RequestRefused:
                    sampler.close()
                    raise
        except RequestRefused:
            for voice in voices:
                voice.close()
            raise
        return work, voices


def too_long(tokens: str, context_length: int) -> RequestRefused:
    """The prompt does not fit, its pictures included; never cut in silence."""
    return RequestRefused(
        f"The messages are {tokens} tokens long, and this model's context holds "
        f"{context_length}, the answer included. Shorten the messages.",
        param="messages",
        kind=FailureKind.CONTEXT_LENGTH,
    )
