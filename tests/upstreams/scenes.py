"""What the played provider can do to a request: answers, and every fault of the fault matrix.

A ``Scene`` is data. ``SCENES`` names the ones that tests and journeys use; a test that needs one
more builds a ``Scene`` of its own. Counting rule of the books: one token is one word of the text,
split at white space; the same rule fills ``usage``, so a client's ledger and the books must agree.
"""

import gzip
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.upstreams.rates import Rates

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india"]

JsonObject = dict[str, Any]
UsageMode = Literal["last", "first", "every", "never", "null", "negative", "absurd", "text"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How one request is answered. The default is a plain, complete, correct answer.

    Times are in seconds. ``reset_after`` and ``close_after`` count bytes of the body (before HTTP
    framing): a reset is a TCP RST, a close is a FIN in the middle of the HTTP body. ``half_line``
    ends the HTTP body correctly in the middle of an SSE line. ``cached`` and ``reasoning`` are
    tokens shown in the details of ``usage`` (and ``reasoning`` words are sent as
    ``reasoning_content``). ``slice_bytes`` cuts the streamed bytes into HTTP chunks of that size.
    ``garbage_after`` is like ``close_after``, with bytes that mean nothing at the cut.
    ``hang_at`` never goes on past that point: the headers alone, or all but the end of the body.
    ``compute_s`` is the computing time that the answer says it took, as decimal text. ``drip_s``
    sends a body that is not streamed byte by byte, with that pause after each.
    """

    name: str = "normal"
    words: int = 8
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str | None = None
    wait_s: float = 0.0
    gap_s: float = 0.0
    usage: UsageMode = "last"
    cached: int = 0
    reasoning: int = 0
    tool_calls: bool = False
    done: bool = True
    finish: bool = True
    newline: str = "\n"
    comments: bool = False
    slice_bytes: int | None = None
    half_line: bool = False
    reset_after: int | None = None
    close_after: int | None = None
    garbage_after: int | None = None
    hang_at: Literal["head", "end"] | None = None
    compute_s: str | None = None
    drip_s: float = 0.0
    error_after: int | None = None
    forever: bool = False
    hang_after: int | None = None
    line_bytes: int | None = None
    gzip: bool = False


def error_body(message: str, code: str | None = None, kind: str = "error") -> bytes:
    """OpenAI's error object."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


def _refusal(name: str, status: int, body: bytes, *headers: tuple[str, str]) -> Scene:
    return Scene(name=name, status=status, body=body, headers=headers)


_TOO_LONG = "This model's maximum context length is 8 tokens, your messages have 9"
_IN_200 = error_body("upstream exploded", "server_error")
_CATALOG = [
    Scene(),
    Scene(name="long", words=100),
    Scene(name="cached", cached=2),
    Scene(name="reasoning", reasoning=4),
    Scene(name="tools", tool_calls=True),
    Scene(name="crlf", newline="\r\n"),
    Scene(name="comments", comments=True),
    Scene(name="sliced", slice_bytes=7),
    Scene(name="usage_first", usage="first"),
    Scene(name="usage_every", usage="every"),
    Scene(name="usage_never", usage="never"),
    Scene(name="usage_null", usage="null"),
    Scene(name="usage_negative", usage="negative"),
    Scene(name="usage_absurd", usage="absurd"),
    Scene(name="usage_text", usage="text"),
    Scene(name="no_done", done=False),
    Scene(name="no_finish", done=False, finish=False),
    Scene(name="slow_headers", wait_s=30.0),
    Scene(name="slow_body", words=30, gap_s=0.1),
    Scene(name="drip", words=1000, gap_s=1.0),
    Scene(name="hang", hang_after=3, words=10),
    Scene(name="reset_at_once", reset_after=0),
    Scene(name="reset", reset_after=400),
    Scene(name="close", close_after=400),
    Scene(name="half_line", half_line=True),
    Scene(name="forever", forever=True, finish=False),
    Scene(name="huge_line", line_bytes=2 * 1024 * 1024),
    Scene(name="gzip", gzip=True),
    Scene(name="garbage", body=b'{"choices": [{"index": 0, "message"'),
    Scene(name="empty", body=b""),
    Scene(name="html", body=b"<html><body>It works!</body></html>", content_type="text/html"),
    Scene(name="error_in_200", body=_IN_200, content_type="application/json"),
    Scene(name="error_first", error_after=0),
    Scene(name="error_later", error_after=3),
    _refusal("bad_request", 400, error_body("temperature is too hot", "invalid_value")),
    _refusal("unprocessable", 422, b'{"detail": "messages: field required"}'),
    _refusal("too_long", 400, error_body(_TOO_LONG, "context_length_exceeded")),
    _refusal("too_large", 413, error_body("body is too large")),
    _refusal("unauthorised", 401, error_body("Incorrect API key provided: sk-secret-1")),
    _refusal("forbidden", 403, error_body("your key sk-secret-1 may not do this")),
    _refusal("no_credit", 402, error_body("please top up")),
    _refusal("no_quota", 429, error_body("You exceeded your quota", "insufficient_quota")),
    _refusal("not_found", 404, error_body("model m is unknown", "model_not_found")),
    _refusal("request_timeout", 408, error_body("too slow")),
    _refusal("rate_limited", 429, error_body("slow down"), ("Retry-After", "7")),
    _refusal("rate_limited_absurd", 429, error_body("slow down"), ("Retry-After", "9" * 40)),
    _refusal(
        "rate_limited_date",
        429,
        error_body("slow down"),
        ("Date", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("Retry-After", "Wed, 21 Oct 2026 07:28:30 GMT"),
    ),
    _refusal("server_error", 500, error_body("boom")),
    _refusal("bad_gateway", 502, b"<html>502 Bad Gateway</html>"),
    _refusal("unavailable", 503, error_body("warming up"), ("Retry-After", "3")),
    _refusal("gateway_timeout", 504, b""),
    _refusal("overloaded", 529, error_body("overloaded")),
    _refusal("redirect", 302, b"", ("Location", "/v1/elsewhere")),
]
SCENES: dict[str, Scene] = {scene.name: scene for scene in _CATALOG}


@dataclass(kw_only=True)
class Booked:
    """What the provider wrote down about one request. Tokens are what it would bill.

    ``gone`` is true when the client closed before the answer was complete; ``finished`` when all of
    the answer was written; ``hanging`` while a scene hangs on purpose; ``ended`` once nothing more
    happens to it. ``headers`` has lower-case names.
    """

    number: int
    id: str
    scene: str
    model: str
    stream: bool
    status: int
    request: JsonObject
    headers: dict[str, str]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    compute_ns: int = 0
    finished: bool = False
    gone: bool = False
    hanging: bool = False
    ended: bool = False

    def bill(self, rates: Rates) -> int:
        """What the provider charges for the request at these rates, in nano-USD."""
        return rates.bill(self.prompt_tokens, self.completion_tokens, self.compute_ns)


@dataclass
class Answer:
    """The words of one answer and their wire forms."""

    scene: Scene
    request: JsonObject
    booked: Booked
    words: list[str] = field(init=False)
    finish_reason: str = field(init=False)

    def __post_init__(self) -> None:
        limit = self.request.get("max_completion_tokens") or self.request.get("max_tokens")
        wanted = self.scene.words
        count = wanted if limit is None else min(wanted, int(limit))
        self.words = list(itertools.islice(itertools.cycle(WORDS), count))
        self.finish_reason = "length" if count < wanted else "stop"
        if self.scene.tool_calls:
            self.finish_reason = "tool_calls"

    def usage(self) -> Any:
        """The usage object as the scene wants it."""
        prompt = self.booked.prompt_tokens
        completion = self.booked.completion_tokens
        match self.scene.usage:
            case "null":
                return None
            case "negative":
                prompt, completion = -5, -7
            case "absurd":
                completion = 10**15
            case "text":
                return {"prompt_tokens": "many", "completion_tokens": "more"}
        usage: JsonObject = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        if self.scene.cached:
            usage["prompt_tokens_details"] = {"cached_tokens": self.scene.cached}
        if self.scene.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.scene.reasoning}
        return usage

    def choices_count(self) -> int:
        return int(self.request.get("n") or 1)

    def whole(self) -> bytes:
        """The body of an answer that is not streamed; books every word as delivered."""
        scene = self.scene
        self.booked.completion_tokens = self.choices_count() * len(self.words) + scene.reasoning
        message: JsonObject = {"role": "assistant", "content": " ".join(self.words)}
        if scene.reasoning:
            message["reasoning_content"] = " ".join(["hm"] * scene.reasoning)
        if scene.tool_calls:
            message |= {"content": None, "tool_calls": [_tool_call(0), _tool_call(1)]}
        body: JsonObject = {
            "id": self.booked.id,
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": self.request.get("model"),
            "choices": [
                {
                    "index": index,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": self.finish_reason if scene.finish else None,
                }
                for index in range(self.choices_count())
            ],
            "system_fingerprint": "fp_played",
        }
        if scene.usage != "never":
            body["usage"] = self.usage()
        encoded = json.dumps(body).encode()
        if scene.line_bytes is not None:
            encoded += b" " * scene.line_bytes
        return gzip.compress(encoded) if scene.gzip else encoded

    def chunk(self, choices: list[JsonObject], usage: Any = ...) -> str:
        """One chunk object as text; ``usage`` left out unless given."""
        body: JsonObject = {
            "id": self.booked.id,
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": self.request.get("model"),
            "choices": choices,
        }
        if usage is not ...:
            body["usage"] = usage
        return json.dumps(body, separators=(",", ":"))


def _tool_call(index: int) -> JsonObject:
    function = {"name": f"tool_{index}", "arguments": f'{{"x": {index}}}'}
    return {"id": f"call_{index}", "type": "function", "function": function}


def delta(index: int, part: JsonObject, finish_reason: str | None = None) -> JsonObject:
    """One choice of a chunk."""
    return {"index": index, "delta": part, "finish_reason": finish_reason}


def tool_deltas() -> list[JsonObject]:
    """Two parallel tool calls, each with its own index, arguments in two pieces."""
    parts: list[JsonObject] = []
    for index in range(2):
        call = _tool_call(index)
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = arguments[:4]
        parts.append({"tool_calls": [{"index": index, **call}]})
        rest = {"index": index, "function": {"arguments": arguments[4:]}}
        parts.append({"tool_calls": [rest]})
    return parts


def prompt_tokens(request: JsonObject) -> int:
    """Words of all messages."""
    total = 0
    for message in request.get("messages") or []:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            total += len(content.split())
        elif isinstance(content, list):
            total += sum(len(str(part.get("text", "")).split()) for part in content)
    return total
