"""Google's Gemini API, played: strict about requests, exact about usage, and faulty on demand.

Source: googleapis/python-genai (fields, enums), vercel/ai (recorded answers), Google's page on
thought signatures, and the texts of real refusals in public issues. A user's text with
``play:NAME`` in it asks for a scene; ``call NAME`` asks for calls of tools. Models named
``gemini-3…`` sign their calls and refuse them unsigned or changed.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.upstreams.gemini_rules import complaint, signature_of
from tests.upstreams.serving import Asked, Reply, Serving

KEY = "AIzaSy-key-of-the-appliance"
Json = dict[str, Any]

_RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
_KEY_INFO = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
    "metadata": {"service": "generativelanguage.googleapis.com"},
}
REFUSALS: dict[str, tuple[int, str, str, list[Json]]] = {
    "bad_request": (400, "INVALID_ARGUMENT", "Invalid value at 'contents[0]'", []),
    "too_long": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
        [],
    ),
    "bad_key": (
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        [_KEY_INFO],
    ),
    "location": (
        400,
        "FAILED_PRECONDITION",
        "User location is not supported for the API use.",
        [],
    ),
    "billing": (
        400,
        "FAILED_PRECONDITION",
        "Gemini API free tier is not available in your country. Please enable billing on your "
        "project in Google AI Studio.",
        [],
    ),
    "forbidden": (
        403,
        "PERMISSION_DENIED",
        f"Permission denied: Consumer 'api_key:{KEY}' has been suspended.",
        [],
    ),
    "not_found": (404, "NOT_FOUND", "models/gemini-nothing is not found for API version", []),
    "rate_limited": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", [_RETRY]),
    "server_error": (500, "INTERNAL", "An internal error has occurred.", []),
    "unavailable": (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", []),
    "timeout": (504, "DEADLINE_EXCEEDED", "The request timed out.", []),
}
STOPS = {
    "length": "MAX_TOKENS",
    "safety": "SAFETY",
    "recitation": "RECITATION",
    "spii": "SPII",
    "malformed": "MALFORMED_FUNCTION_CALL",
    "new_reason": "A_REASON_OF_TOMORROW",
}
_LATER = {"error_later": "server_error", "overloaded_later": "unavailable"}


@dataclass(frozen=True)
class Billed:
    """What one request would cost, in Google's counts."""

    model: str
    prompt: int
    cached: int
    sound: int
    candidates: int
    thoughts: int


@dataclass
class PlayedGemini:
    """Use ``async with``; ``books`` are the bills, ``refused`` what was wrong with requests."""

    slice_bytes: int = 0
    books: list[Billed] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)

    async def __aenter__(self) -> "PlayedGemini":
        self.serving = Serving(self.play)
        await self.serving.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.serving.__aexit__(*error)

    @property
    def base_url(self) -> str:
        return self.serving.origin + "/v1beta"

    async def play(self, asked: Asked, reply: Reply) -> None:
        found = re.fullmatch(r"/v1beta/models/([\w.-]+):(\w+)", asked.path)
        if asked.method != "POST" or found is None:
            await refuse(reply, REFUSALS["not_found"])
            return
        if asked.headers.get("x-goog-api-key") != KEY:
            await refuse(reply, REFUSALS["bad_key"])
            return
        model, method = found.groups()
        body = asked.json()
        self.bodies.append(body)
        if method == "batchEmbedContents":
            await self._embed(model, body, reply)
            return
        why = complaint(body, model)
        if why is None and method == "streamGenerateContent" and asked.query != {"alt": "sse"}:
            why = "alt: expected sse"
        if why is not None:
            self.refused.append(why)
            await refuse(reply, (400, "INVALID_ARGUMENT", why, []))
            return
        await self._generate(model, body, reply, stream=method == "streamGenerateContent")

    async def _generate(self, model: str, body: Json, reply: Reply, *, stream: bool) -> None:
        scene = scene_of(body)
        if scene in REFUSALS:
            await refuse(reply, REFUSALS[scene])
        elif scene in _BROKEN:
            await _BROKEN[scene](reply)
        elif stream:
            await self._stream(reply, self._answer(model, body, scene), scene)
        elif scene == "error_in_200":
            await reply.answer(200, error_of(REFUSALS["server_error"]))
        else:
            await reply.answer(200, self._answer(model, body, scene))

    def _answer(self, model: str, body: Json, scene: str) -> Json:
        if scene == "blocked":
            answer: Json = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
            candidates: list[Json] = []
        else:
            count = body.get("generationConfig", {}).get("candidateCount", 1)
            candidates = [candidate_of(body, model, scene, index) for index in range(count)]
            answer = {"candidates": candidates}
        parts = [part for each in candidates for part in each["content"].get("parts", [])]
        thoughts = words_in([part["text"] for part in parts if part.get("thought")])
        made = words_in([part for part in parts if not part.get("thought")])
        size = words_in([body.get(name) for name in ("systemInstruction", "contents", "tools")])
        sound = json.dumps(body).count('"audio/') * 32
        cached = size // 2 if "cached" in scene else 0
        bill = Billed(model, size + sound, cached, sound, made, thoughts)
        self.books.append(bill)
        answer |= {"usageMetadata": usage_of(bill), "modelVersion": model}
        answer["responseId"] = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:22]
        return answer

    async def _stream(self, reply: Reply, answer: Json, scene: str) -> None:
        events = events_of(answer)
        if scene in _LATER:
            events = [*events[:3], error_of(REFUSALS[_LATER[scene]])]
        if scene == "error_first":
            events = [error_of(REFUSALS["unavailable"])]
        data = frames_of(events)
        if scene in ("cut", "reset", "hang", "ends_early"):
            data = data[: data.rindex(b"data:") - 20]
        await reply.begin()
        size = self.slice_bytes or len(data)
        for start in range(0, len(data), size):
            await reply.send(data[start : start + size])
        if scene == "cut":
            await reply.close()
        elif scene == "reset":
            await reply.reset()
        elif scene in ("hang", "never_ends"):
            await reply.hang()
        else:
            await reply.end()

    async def _embed(self, model: str, body: Json, reply: Reply) -> None:
        names = {"model", "content", "outputDimensionality", "taskType"}
        for each in body["requests"]:
            if set(each) - names or each["model"] != f"models/{model}":
                self.refused.append(f"requests: {sorted(each)}")
                await refuse(reply, REFUSALS["bad_request"])
                return
        texts = [each["content"]["parts"][0]["text"] for each in body["requests"]]
        scene = texts[0].removeprefix("play:")
        if scene in REFUSALS:
            await refuse(reply, REFUSALS[scene])
            return
        length = body["requests"][0].get("outputDimensionality", 4)
        vectors: list[Json] = [
            {"values": [len(text) / 8 + n for n in range(length)]} for text in texts
        ]
        if scene == "one_less":
            vectors = vectors[1:]
        if scene == "crooked":
            vectors[0]["values"].append(1.0)
        await reply.answer(200, {"embeddings": vectors})


def candidate_of(body: Json, model: str, scene: str, index: int) -> Json:
    """One answer, always the same for the same request."""
    said = texts_in(body["contents"][-1])
    config = body.get("generationConfig", {})
    signs = model.startswith("gemini-3")
    parts: list[Json] = []
    if config.get("thinkingConfig", {}).get("includeThoughts"):
        parts.append({"text": f"Let me think about {said[:40]}", "thought": True})
    parts.append({"text": f"You said: {said or 'nothing'} – ünï {len(said) + index}"})
    if config.get("responseMimeType") == "application/json":
        parts[-1]["text"] = json.dumps({"said": said})
    calls = calls_of(body, said)
    for number, name in enumerate(calls):
        call: Json = {"name": name}
        if name != "noop":
            call["args"] = {"city": f"Zürich {number}", "deep": [1, {"x": None}]}
        parts.append({"functionCall": call})
        if signs and number == 0:
            parts[-1]["thoughtSignature"] = signature_of(call)
    if signs and not calls:
        parts.append({"text": "", "thoughtSignature": signature_of(parts[-1])})
    if scene == "strange":
        parts.insert(0, {"executableCode": {"language": "PYTHON", "code": "1"}})
        parts.insert(0, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}})
    content: Json = {"parts": parts, "role": "model"}
    if scene in ("safety", "empty", "malformed"):
        content = {"role": "model"}
    found: Json = {"content": content, "finishReason": STOPS.get(scene, "STOP"), "index": index}
    if config.get("responseLogprobs"):
        found["logprobsResult"] = logprobs_of(parts[-1].get("text", ""), config.get("logprobs", 0))
    return found


def calls_of(body: Json, said: str) -> list[str]:
    """The tools that the text asks to be called."""
    known = [f["name"] for tool in body.get("tools", ()) for f in tool["functionDeclarations"]]
    mode = body.get("toolConfig", {}).get("functionCallingConfig", {})
    calls = [name for name in re.findall(r"call (\w+)", said) if name in known]
    if mode.get("mode") == "ANY":
        calls = calls or mode.get("allowedFunctionNames", known)[:1]
    return [] if mode.get("mode") == "NONE" else calls


def logprobs_of(text: str, top: int) -> Json:
    """A token is a word; the likeliest others are made up."""
    words = text.split()
    return {
        "chosenCandidates": [
            {"token": word, "tokenId": n, "logProbability": -0.25} for n, word in enumerate(words)
        ],
        "topCandidates": [
            {"candidates": [{"token": f"{word}{n}", "logProbability": -n} for n in range(top)]}
            for word in words
        ],
    }


def usage_of(bill: Billed) -> Json:
    """The counts, without those that are zero, as the API sends them."""
    usage: Json = {
        "promptTokenCount": bill.prompt,
        "candidatesTokenCount": bill.candidates,
        "totalTokenCount": bill.prompt + bill.candidates + bill.thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": bill.prompt - bill.sound}],
    }
    if bill.sound:
        usage["promptTokensDetails"].append({"modality": "AUDIO", "tokenCount": bill.sound})
    if bill.thoughts:
        usage["thoughtsTokenCount"] = bill.thoughts
    if bill.cached:
        usage["cachedContentTokenCount"] = bill.cached
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": bill.cached}]
    return usage


def events_of(answer: Json) -> list[Json]:
    """The same answer as events: texts in pieces of five characters, calls whole, the end last."""
    shared: Json = {name: answer[name] for name in ("modelVersion", "responseId") if name in answer}
    usage: Json = answer.get("usageMetadata", {})
    early = {name: usage[name] for name in ("promptTokenCount",) if name in usage}
    if not answer.get("candidates"):
        return [answer]
    events: list[Json] = []
    for candidate in answer["candidates"]:
        pieces = [
            piece for part in candidate["content"].get("parts", ()) for piece in pieces_of(part)
        ]
        for piece in pieces[:-1]:
            said = {"content": {"parts": [piece], "role": "model"}, "index": candidate["index"]}
            events.append({"candidates": [said], "usageMetadata": early, **shared})
        last = {**candidate, "content": {"parts": pieces[-1:], "role": "model"}}
        if not pieces:
            last.pop("content")
        events.append({"candidates": [last], "usageMetadata": early, **shared})
    events[-1]["usageMetadata"] = usage
    return events


def pieces_of(part: Json) -> list[Json]:
    """A part in pieces; a signature comes with the last."""
    text = part.get("text")
    if not text:
        return [part]
    rest = {key: value for key, value in part.items() if key not in ("text", "thoughtSignature")}
    pieces = [{"text": text[at : at + 5], **rest} for at in range(0, len(text), 5)]
    if "thoughtSignature" in part:
        pieces[-1]["thoughtSignature"] = part["thoughtSignature"]
    return pieces


def frames_of(events: list[Json]) -> bytes:
    """The events as they go over the wire."""
    return b"".join(
        f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode() for event in events
    )


def scene_of(body: Json) -> str:
    """The scene that the last content asks for."""
    found = re.findall(r"play:(\w+)", json.dumps(body["contents"][-1]))
    return found[-1] if found else "normal"


def texts_in(content: Json) -> str:
    """All text of a content, results of tools included."""
    texts = []
    for part in content["parts"]:
        if "functionResponse" in part:
            texts.append(part["functionResponse"]["response"]["output"])
        elif "text" in part:
            texts.append(part["text"])
    return " ".join(texts)


def words_in(value: Any) -> int:
    """A count that stands for tokens."""
    return len(re.findall(r"\w+", json.dumps(value)))


def error_of(fault: tuple[int, str, str, list[Json]]) -> Json:
    """An error's body."""
    code, status, message, details = fault
    error: Json = {"code": code, "message": message, "status": status}
    return {"error": {**error, "details": details} if details else error}


async def refuse(reply: Reply, fault: tuple[int, str, str, list[Json]]) -> None:
    """An error with its status."""
    await reply.answer(fault[0], error_of(fault))


async def _garbage(reply: Reply) -> None:
    await reply.answer(200, b'{"candidates": [{"cont', kind="application/json")


async def _html(reply: Reply) -> None:
    await reply.answer(200, "<html>Bad gateway</html>", kind="text/html")


async def _gzip(reply: Reply) -> None:
    await reply.answer(200, b"\x1f\x8b\x08", [("content-encoding", "gzip")])


async def _nothing(reply: Reply) -> None:
    await reply.answer(200, {"usageMetadata": {"promptTokenCount": 3}})


async def _slow_headers(reply: Reply) -> None:
    await reply.hang()


async def _redirect(reply: Reply) -> None:
    await reply.answer(307, b"", [("location", "http://127.0.0.1:1/elsewhere")])


async def _reset_at_once(reply: Reply) -> None:
    await reply.reset()


_BROKEN = {
    "garbage": _garbage,
    "html": _html,
    "gzip": _gzip,
    "nothing": _nothing,
    "redirect": _redirect,
    "slow_headers": _slow_headers,
    "reset_at_once": _reset_at_once,
}
