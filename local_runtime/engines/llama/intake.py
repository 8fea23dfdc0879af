"""A request on its way in: checked, tokenised, and given its samplers."""

from local_runtime.engines.contract import EngineRequest, RequestRefused
from local_runtime.engines.llama import request
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.grammar import grammar_of
from local_runtime.engines.llama.native import Model
from local_runtime.engines.llama.prompt import PromptBuilder
from local_runtime.engines.llama.sampling import Sampler, spec_of
from local_runtime.engines.llama.slots import Sequence, Work
from local_runtime.engines.llama.voice import Voice
from plugins.contract import FailureKind


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
    ) -> None:
        self._model = model
        self._prompts = PromptBuilder(model, template)
        self._context_length = context_length
        self._cells = cells
        self._sequences_max = sequences_max
        self._next_number = 0

    def take(self, asked: EngineRequest) -> tuple[Work, list[Voice]]:
        """The work, and a voice for each of its sequences. Raises RequestRefused."""
        chat = asked.chat
        request.check(chat, sequences_max=self._sequences_max)
        sampling = spec_of(
            chat,
            vocab_size=self._model.vocab_size,
            end_tokens=self._model.end_tokens,
            grammar=grammar_of(chat.response_format),
        )
        text = self._prompts.text(chat)
        least = text.size_bytes // self._model.piece_bytes_max
        if least > self._context_length:  # tokenising that much would hold everybody up
            raise too_long(f"at least {least}", self._context_length)
        prompt = self._prompts.tokens(text)
        if len(prompt) >= self._context_length:
            raise too_long(f"{len(prompt)}", self._context_length)
        count = chat.answers()
        # All answers of one request must fit at once: it could never make room for itself.
        room = min(self._context_length - len(prompt), (self._cells - len(prompt)) // count)
        tokens_max = len(prompt) + min(chat.output_tokens_limit() or room, room)
        work = Work(
            request_id=asked.request_id,
            number=self._next_number,
            prompt_tokens=len(prompt),
            sequences=[Sequence(index, list(prompt), tokens_max) for index in range(count)],
            compute_ns_max=asked.compute_ns_max,
        )
        self._next_number += 1
        stops = list(request.stops(chat))
        voices: list[Voice] = []
        try:
            for index in range(count):
                sampler = Sampler(
                    self._model, sampling, prompt, index=index, window=self._context_length
                )
                voices.append(Voice(self._model, sampler, stops))
        except RequestRefused:
            for voice in voices:
                voice.close()
            raise
        return work, voices


def too_long(tokens: str, context_length: int) -> RequestRefused:
    """The prompt does not fit; never cut in silence."""
    return RequestRefused(
        f"The messages are {tokens} tokens long, and this model's context holds "
        f"{context_length}, the answer included. Shorten the messages.",
        param="messages",
        kind=FailureKind.CONTEXT_LENGTH,
    )
