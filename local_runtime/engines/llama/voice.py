"""What one sequence says: its sampler, its text so far, and logprobs that wait for their text."""

from collections import deque

from local_runtime.engines.contract import TokenLogprob
from local_runtime.engines.llama.native import Context, Model
from local_runtime.engines.llama.sampling import Sampler
from local_runtime.engines.text import TextAssembler


class Voice:
    """From logits to what the client may see. ``close`` frees the sampler."""

    def __init__(self, model: Model, sampler: Sampler, stops: list[str]) -> None:
        self._model = model
        self._sampler = sampler
        self._text = TextAssembler(stops)
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def choose(self, context: Context, row: int) -> int | None:
        """The next token; None where a grammar leaves none. Its logprob is kept if asked for."""
        token = self._sampler.sample(context, row)
        if token is None or token in self._model.end_tokens:
            return token
        logprob = self._sampler.logprob(context, row, token)
        if logprob is not None:
            self._waiting.append((-1, logprob))
        return token

    def say(self, token: int) -> tuple[str, list[TokenLogprob] | None]:
        """Text that may be shown now, and the logprobs of the tokens whose text has been shown."""
        text = self._text.push(self._model.piece(token))
        if self._waiting and self._waiting[-1][0] < 0:
            self._waiting[-1] = (self._text.characters_seen, self._waiting[-1][1])
        return text, self._shown()

    def finish(self) -> tuple[str, list[TokenLogprob] | None]:
        """What was held back for a stop string that did not come."""
        return self._text.flush(), self._shown()

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self._text.stopped

    def close(self) -> None:
        self._sampler.close()

    def _shown(self) -> list[TokenLogprob] | None:
        shown = []
        while self._waiting and self._waiting[0][0] <= self._text.characters_shown:
            shown.append(self._waiting.popleft()[1])
        return shown or None
