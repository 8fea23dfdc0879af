"""One answer that grows part by part, as deltas; a whole answer is those deltas put together, so
that both say the same.
"""

import hashlib

import msgspec

from plugins.chat import AssistantMessage, Choice, ChoiceDelta, Delta, Object
from plugins.gemini import wire
from plugins.gemini.contents import THOUGHT_FORMAT


class Answer:
    """One candidate. ``seed`` makes the ids of its calls where the provider gives none."""

    def __init__(self, index: int, seed: str) -> None:
        self.finished = False
        self._index = index
        self._seed = seed
        self._begun = False
        self._calls = 0
        self._details = 0
        self._thought = ""

    def take(self, candidate: wire.WireCandidate) -> list[ChoiceDelta]:
        """The deltas of one piece of the answer; none after its end."""
        if self.finished:
            return []
        deltas: list[Delta] = []
        parts = candidate.content.parts if candidate.content is not None else None
        for part in parts or ():
            deltas += self._part(part)
        finish = None
        if reason := candidate.finish_reason:
            finish = wire.finish_of(reason, called=self._calls > 0)
            self.finished = True
        logprobs = wire.logprobs_of(candidate.logprobs_result)
        if not deltas and (finish or logprobs):
            deltas = [Delta()]
        if deltas and not self._begun:
            self._begun = True
            deltas[0].role = "assistant"
        said = [ChoiceDelta(index=self._index, delta=delta) for delta in deltas]
        if said:
            said[-1].finish_reason = finish
            said[-1].logprobs = logprobs
        return said

    def _part(self, part: wire.WirePart) -> list[Delta]:
        signature = part.thought_signature or ""
        if (call := part.function_call) is not None:
            return self._call(call, signature) if call.name else []
        deltas: list[Delta] = []
        if part.thought:
            self._thought += part.text or ""
            if part.text:
                deltas.append(Delta(reasoning_content=part.text))
            if signature and self._thought:
                detail = {"type": "reasoning.text", "text": self._thought, "signature": signature}
                deltas.append(self._detail(detail))
                self._thought = ""
            return deltas
        if part.text:
            deltas.append(Delta(content=part.text))
        if signature:
            deltas.append(self._detail({"type": "reasoning.encrypted", "data": signature}))
        return deltas

    def _call(self, call: wire.WireCall, signature: str) -> list[Delta]:
        given = call.id or ""
        if not 0 < len(given) <= wire.ID_LENGTH_MAX or not given.isprintable():
            source = f"{self._seed}\0{self._index}\0{self._calls}"
            given = "call_" + hashlib.sha256(source.encode()).hexdigest()[:24]
        written: Object = {
            "index": self._calls,
            "id": given,
            "type": "function",
            "function": {
                "name": call.name[: wire.ID_LENGTH_MAX],
                "arguments": wire.arguments_of(call.args),
            },
        }
        self._calls += 1
        if not signature:
            return [Delta(tool_calls=[written])]
        written["extra_content"] = {"google": {"thought_signature": signature}}
        detail = self._detail({"type": "reasoning.encrypted", "data": signature, "id": given})
        detail.tool_calls = [written]
        return [detail]

    def _detail(self, detail: Object) -> Delta:
        number = self._details
        self._details += 1
        return Delta(reasoning_details=[{**detail, "format": THOUGHT_FORMAT, "index": number}])


def whole(deltas: list[ChoiceDelta]) -> list[Choice]:
    """The answers that the deltas add up to, by index."""
    found: dict[int, _Sum] = {}
    for part in deltas:
        found.setdefault(part.index, _Sum()).add(part)
    return [found[index].choice(index) for index in sorted(found)]


class _Sum(msgspec.Struct):
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[Object] = []
    calls: list[Object] = []
    tokens: list[Object] = []
    finish: str = "stop"

    def add(self, part: ChoiceDelta) -> None:
        delta = part.delta
        self.texts += [delta.content] if delta.content else []
        self.thoughts += [delta.reasoning_content] if delta.reasoning_content else []
        self.details += delta.reasoning_details or []
        for call in delta.tool_calls or ():
            self.calls.append({key: value for key, value in call.items() if key != "index"})
        self.tokens += part.logprobs["content"] if part.logprobs else []
        self.finish = part.finish_reason or self.finish

    def choice(self, index: int) -> Choice:
        message = AssistantMessage(
            role="assistant",
            content="".join(self.texts) if self.texts or not self.calls else None,
            tool_calls=wire.or_unset(self.calls),
            reasoning_content=wire.or_unset("".join(self.thoughts)),
            reasoning_details=wire.or_unset(self.details),
        )
        logprobs = {"content": self.tokens, "refusal": None} if self.tokens else None
        return Choice(index=index, message=message, logprobs=logprobs, finish_reason=self.finish)
