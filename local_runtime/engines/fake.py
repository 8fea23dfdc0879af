"""A deterministic engine without weights, for tests and demonstrations.

It answers ``echo: `` and the last message's text, a word at a time. A token is a word with the
space before it. What it bills is as deterministic as what it says: each token, read or written,
costs ``compute_ns_per_token``, whatever the wall clock says.

Options (``fake:tokens_per_second=50,crash_on=BOOM``):

- ``tokens_per_second``: how fast it generates, per sequence; without it as fast as it can
- ``compute_ns_per_token``: the bill's rate, 1,000,000 unless given
- ``context_length`` and ``load_seconds``: as they say
- ``memory_bytes``: what it says it takes once it is loaded; ``footprint_bytes``: what it is thought
  to take before that
- ``repeat``: how many times it says its answer
- ``crash_on``: a prompt that contains this text ends the process at once, as a fault in native code
  would; ``crash_after_tokens`` lets it say so many tokens first
- ``break_on``: the same, but the engine raises, as a fault in Python would
- ``fail_on_load``: loading fails with this text
- ``grab_on``: such a prompt makes it take memory until it gets no more
- ``hang_on``: a prompt that contains this text makes it stop in the middle of a step, for ever
"""

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from local_runtime.engines.contract import (
    Admitted,
    EngineEvent,
    EngineInfo,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
    Failed,
    Finished,
    Occupancy,
    Piece,
)
from local_runtime.engines.text import TextAssembler
from plugins.chat import ChatRequest
from plugins.contract import FailureKind, Usage

CONTEXT_LENGTH_DEFAULT = 2048
COMPUTE_NS_PER_TOKEN_DEFAULT = 1_000_000

# It says the same whatever the sampling parameters, so they are honoured by being accepted.
SUPPORTED_PARAMS = frozenset(
    {
        "max_completion_tokens", "max_tokens", "metadata", "n", "seed", "stop", "stream",
        "stream_options", "temperature", "top_p", "user",
    }
)  # fmt: skip

_NUMBERS = {"tokens_per_second", "load_seconds"}
_WHOLE_NUMBERS = {
    "compute_ns_per_token", "context_length", "crash_after_tokens", "footprint_bytes",
    "memory_bytes", "repeat",
}  # fmt: skip
_TEXTS = {"break_on", "crash_on", "fail_on_load", "grab_on", "hang_on"}
_GRABBED_BYTES = 16 << 20  # at a time


def parse_options(text: str) -> dict[str, str]:
    """``name=value,name=value`` into a dict. Raises ValueError naming what is wrong."""
    options: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in _NUMBERS | _WHOLE_NUMBERS | _TEXTS:
            known = ", ".join(sorted(_NUMBERS | _WHOLE_NUMBERS | _TEXTS))
            raise ValueError(f"{part!r} is not name=value with one of the names {known}")
        if name in _NUMBERS and not float(value) > 0:
            raise ValueError(f"{name} must be more than 0")
        if name in _WHOLE_NUMBERS and int(value) < 0:
            raise ValueError(f"{name} must not be negative")
        options[name] = value
    return options


@dataclass(slots=True, eq=False)
class _Answer:
    index: int
    text: TextAssembler
    said: int = 0
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Work:
    request: EngineRequest
    words: list[str]
    prompt_tokens: int
    tokens_max: int
    crashes: bool
    breaks: bool
    grabs: bool
    hangs: bool
    answers: list[_Answer] = field(default_factory=list)
    admitted: bool = False
    read: int = 0
    output_tokens: int = 0
    compute_ns: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(
            input_tokens=self.read, output_tokens=self.output_tokens, compute_ns=self.compute_ns
        )


class FakeEngine:
    """See the top of this file."""

    busy_ns = 0
    unbilled_ns = 0

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        options = spec.options
        if "fail_on_load" in options:
            raise EngineLoadError(options["fail_on_load"])
        seconds = float(options.get("load_seconds", 0))
        for tenth in range(10):
            progress(tenth / 10)
            time.sleep(seconds / 10)
        progress(1.0)
        self._token_ns = int(options.get("compute_ns_per_token", COMPUTE_NS_PER_TOKEN_DEFAULT))
        speed = float(options.get("tokens_per_second", 0))
        self._pace_s = 1 / speed if speed else 0.0
        self._repeat = int(options.get("repeat", 1))
        self._crash_on = options.get("crash_on")
        self._break_on = options.get("break_on")
        self._grab_on = options.get("grab_on")
        self._hang_on = options.get("hang_on")
        self._crash_after = int(options.get("crash_after_tokens", 0))
        self._context_length = context_length_of(spec)
        self._sequences_max = spec.sequences_max
        self._work: list[_Work] = []
        self._outbox: list[EngineEvent] = []
        return EngineInfo(
            context_length=self._context_length,
            sequences_max=spec.sequences_max,
            threads=1,
            load_ms=int(seconds * 1000),
            memory_bytes=int(options.get("memory_bytes", 0)),
        )

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(sequences_running=len(self._work))

    @property
    def has_work(self) -> bool:
        return bool(self._work or self._outbox)

    def submit(self, request: EngineRequest) -> None:
        chat = request.chat
        if chat is None:
            text = "This model holds conversations; it makes no embeddings and ranks no documents."
            self._refuse(request, FailureKind.BAD_REQUEST, text, "model")
            return
        prompt = [word for text in map(str, _texts(chat)) for word in tokens_of(text)]
        answers = chat.answers()
        if len(prompt) >= self._context_length:
            self._refuse(
                request,
                FailureKind.CONTEXT_LENGTH,
                f"The messages are {len(prompt)} tokens long, and this model's context holds "
                f"{self._context_length}, the answer included. Shorten the messages.",
                "messages",
            )
            return
        if answers > self._sequences_max:
            text = f"n: this model gives at most {self._sequences_max} answers at once."
            self._refuse(request, FailureKind.BAD_REQUEST, text, "n")
            return
        last = (_texts(chat) or [""])[-1]
        words = tokens_of("echo: " + " ".join([last] * self._repeat))
        room = self._context_length - len(prompt)
        work = _Work(
            request=request,
            words=words,
            prompt_tokens=len(prompt),
            tokens_max=min(chat.output_tokens_limit() or room, room),
            crashes=_holds(prompt, self._crash_on),
            breaks=_holds(prompt, self._break_on),
            grabs=_holds(prompt, self._grab_on),
            hangs=_holds(prompt, self._hang_on),
        )
        stop = chat.stop
        stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
        work.answers = [_Answer(index, TextAssembler(stops)) for index in range(answers)]
        self._work.append(work)

    def _refuse(self, request: EngineRequest, kind: FailureKind, text: str, param: str) -> None:
        self._outbox.append(Failed(request.request_id, Usage(), kind, text, param=param))

    def cancel(self, request_id: str) -> None:
        for work in list(self._work):
            if work.request.request_id == request_id:
                self._work.remove(work)
                self._outbox.append(Finished(request_id, work.usage))

    def step(self) -> list[EngineEvent]:
        events, self._outbox = self._outbox, []
        slots = self._sequences_max
        active = []
        for work in self._work:
            slots -= len(work.answers)
            if slots < 0:
                break
            active.append(work)
        if active and self._pace_s:
            time.sleep(self._pace_s)
        for work in active:
            events += self._advance(work)
        return events

    def _advance(self, work: _Work) -> list[EngineEvent]:
        """Read the prompt, in the first step; then a word of every answer."""
        request_id = work.request.request_id
        events: list[EngineEvent] = []
        if not work.admitted:
            work.admitted = True
            events.append(Admitted(request_id, work.usage))
            work.read = min(work.prompt_tokens, self._affordable(work))
            self._bill(work, work.read)
        pieces: list[tuple[_Answer, str, str | None]] = []
        for answer in work.answers:
            if not answer.ended:
                pieces.append((answer, *self._say(work, answer)))
        usage = work.usage
        for answer, text, reason in pieces:
            answer.ended = reason is not None
            events.append(Piece(request_id, usage, answer.index, text, None, reason))
        if all(answer.ended for answer in work.answers):
            self._work.remove(work)
            events.append(Finished(request_id, usage))
        return events

    def _say(self, work: _Work, answer: _Answer) -> tuple[str, str | None]:
        if work.read < work.prompt_tokens or self._affordable(work) < 1:
            return answer.text.flush(), "length"
        if answer.said >= self._crash_after:
            if work.crashes:
                os.kill(os.getpid(), signal.SIGKILL)
            if work.breaks:
                raise RuntimeError("this prompt breaks the engine, as it was told to")
            grabbed: list[bytearray] = []
            while work.grabs:
                grabbed.append(bytearray(b"x") * _GRABBED_BYTES)  # every page of it is touched
            while work.hangs:
                time.sleep(1)
        word = work.words[answer.said] if answer.said < len(work.words) else ""
        answer.said += 1
        work.output_tokens += 1
        self._bill(work, 1)
        text = answer.text.push(word.encode("utf-8"))
        if answer.text.stopped:
            return text, "stop"
        if answer.said >= len(work.words):
            return text + answer.text.flush(), "stop"
        if answer.said >= work.tokens_max:
            return text + answer.text.flush(), "length"
        return text, None

    def _affordable(self, work: _Work) -> int:
        """Tokens that may still be computed."""
        limit_ns = work.request.compute_ns_max
        if limit_ns is None or not self._token_ns:
            return self._context_length
        return (limit_ns - work.compute_ns) // self._token_ns

    def _bill(self, work: _Work, tokens: int) -> None:
        work.compute_ns += tokens * self._token_ns
        self.busy_ns += tokens * self._token_ns

    def unload(self) -> None:
        self._work.clear()


def context_length_of(spec: EngineSpec) -> int:
    """The configured context length, or the one among the options, or the default."""
    return spec.context_length or int(spec.options.get("context_length", CONTEXT_LENGTH_DEFAULT))


def tokens_of(text: str) -> list[str]:
    """Words with the space before them; together they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _holds(words: list[str], text: str | None) -> bool:
    return text is not None and any(text in word for word in words)


def _texts(chat: ChatRequest) -> list[str]:
    texts = []
    for message in chat.messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        elif isinstance(message.content, list):
            texts.append(" ".join(str(part.get("text", "")) for part in message.content))
    return texts
