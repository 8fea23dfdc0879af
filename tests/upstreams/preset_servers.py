"""Every preset's provider, played: its path, its key's header, what it refuses, and its quirks.

A ``Played`` row says how the real one behaves; what it says about requests is enforced as the real
one does, with a 400 that names what is wrong. Rows do not read the presets that they are to test.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.upstreams.quirks import Quirks, Said, Spent, events, whole
from tests.upstreams.serving import Asked, Reply, Serving

KEY = "key-of-the-appliance"
TEXT = ("alpha ", "bravo ", "charlie ", "delta")
THOUGHTS = ("hm ", "hm")
CALLS = (("find", '{"x": 0}'), ("read", '{"y": [1, 2]}'))
PENALTIES = frozenset({"frequency_penalty", "presence_penalty"})
_USUAL = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "temperature", "top_p", "stop"),
        *("tools", "tool_choice", "response_format", "seed", "max_tokens", "user"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Played:
    """One provider. ``path`` is that of chats, below the origin.

    ``refuses`` are parameters, ``takes`` the only ones there are where that is known;
    ``roles`` and ``fields`` are what messages may have, ``strings`` the roles whose content must be
    a string, ``values`` the only values of a parameter. ``error`` is the form of its errors.
    """

    path: str = "/v1/chat/completions"
    key_header: str = "authorization"
    needs_key: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    refuses: frozenset[str] = frozenset()
    takes: frozenset[str] | None = None
    roles: frozenset[str] = frozenset({"system", "user", "assistant", "tool"})
    fields: frozenset[str] | None = None
    strings: frozenset[str] = frozenset()
    values: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    schema: str = "json_schema"
    quirks: Quirks = field(default_factory=Quirks)
    error: str = "openai"


_ALL_ROLES = frozenset({"system", "user", "assistant", "tool", "developer"})
_EVERYBODY = frozenset({"system", "user", "assistant", "tool"})
_FIELDS = frozenset({"role", "content", "tool_calls", "tool_call_id"})
_NO_LIMIT = frozenset({"max_completion_tokens"})
_OWN: dict[str, Any] = {"needs_key": False, "refuses": _NO_LIMIT}
_OPENAI: dict[str, Any] = {
    "roles": _ALL_ROLES,
    "fields": _FIELDS | {"name", "refusal"},
    "refuses": frozenset({"max_tokens", "top_k"}),
}
PLAYED: dict[str, Played] = {
    "cerebras": Played(
        refuses=PENALTIES | {"logit_bias", "max_tokens"},
        quirks=Quirks(reasoning="reasoning", nulls=True),
        error="top_level",
    ),
    "together": Played(
        refuses=_NO_LIMIT | {"logprobs"},
        schema="flat",
        quirks=Quirks(
            reasoning="reasoning", reasons={"stop": "eos"}, details="together", nulls=True
        ),
    ),
    "groq": Played(
        path="/openai/v1/chat/completions",
        refuses=frozenset({"logprobs", "logit_bias", "top_logprobs", "n"}),
        fields=_FIELDS | {"reasoning"},
        quirks=Quirks(reasoning="reasoning", usage="groq"),
    ),
    "fireworks": Played(
        path="/inference/v1/chat/completions",
        refuses=_NO_LIMIT,
        schema="json_object",
        quirks=Quirks(usage="with_finish", nulls=True),
        error="string",
    ),
    "sambanova": Played(
        refuses=_NO_LIMIT | PENALTIES | {"n", "logprobs"},
        strings=_EVERYBODY,
        quirks=Quirks(strays=True),
    ),
    "novita": Played(path="/openai/v1/chat/completions", refuses=_NO_LIMIT, error="string"),
    "nebius": Played(refuses=_NO_LIMIT, quirks=Quirks(nulls=True), error="detail"),
    "hyperbolic": Played(
        refuses=_NO_LIMIT | {"logit_bias", "logprobs"}, quirks=Quirks(usage="every"), error="object"
    ),
    "nscale": Played(refuses=_NO_LIMIT | {"logit_bias"}, quirks=Quirks(ids="every")),
    "featherless": Played(
        refuses=_NO_LIMIT | {"logprobs"},
        values={"tool_choice": ("auto", "none")},
        quirks=Quirks(index="zero"),
    ),
    "ovhcloud": Played(needs_key=False, quirks=Quirks(reasoning="reasoning"), error="object"),
    "scaleway": Played(
        refuses=_NO_LIMIT | {"frequency_penalty", "n", "top_logprobs", "logit_bias", "user"},
        error="detail",
    ),
    "baseten": Played(refuses=_NO_LIMIT | {"n"}, quirks=Quirks(nulls=True), error="string"),
    "deepinfra": Played(
        path="/v1/openai/chat/completions",
        refuses=_NO_LIMIT | {"logprobs"},
        values={"tool_choice": ("auto", "none")},
        quirks=Quirks(apart=True, bill={"estimated_cost": 1.5e-7}),
        error="detail",
    ),
    "publicai": Played(refuses=_NO_LIMIT, strings=_EVERYBODY, quirks=Quirks(loose=True)),
    "openai": Played(**_OPENAI),
    "azure_openai": Played(
        path="/openai/v1/chat/completions",
        key_header="api-key",
        quirks=Quirks(strays=True),
        **_OPENAI,
    ),
    "mistral": Played(
        takes=(_USUAL - {"seed", "user", "stream_options"})
        | PENALTIES
        | {"random_seed", "n", "parallel_tool_calls", "reasoning_effort"},
        fields=_FIELDS,
        quirks=Quirks(
            reasoning="parts",
            index="none",
            arguments="object",
            reasons={"length": "model_length"},
            usage="with_finish",
            details="mistral",
        ),
        error="extra",
    ),
    "deepseek": Played(
        refuses=_NO_LIMIT,
        strings=_EVERYBODY,
        schema="none",
        quirks=Quirks(details="deepseek", comments=True),
    ),
    "xai": Played(
        refuses=PENALTIES | {"stop", "max_tokens"},
        fields=_FIELDS | {"reasoning_content"},
        quirks=Quirks(reasons={"tool_calls": ""}, apart=True, bill={"cost_in_usd_ticks": 1505}),
        error="xai",
    ),
    "cohere": Played(
        path="/compatibility/v1/chat/completions",
        refuses=_NO_LIMIT
        | {"logit_bias", "top_logprobs", "n", "parallel_tool_calls", "tool_choice", "user"},
        values={"reasoning_effort": ("none", "high")},
        schema="json_object",
        error="top_level",
    ),
    "zai": Played(
        path="/api/paas/v4/chat/completions",
        headers=(("accept-language", "en-US,en"),),
        refuses=_NO_LIMIT | PENALTIES | {"n", "logprobs", "seed"},
        strings=frozenset({"assistant", "tool"}),
        schema="none",
        quirks=Quirks(reasons={"content_filter": "sensitive"}),
        error="int_code",
    ),
    "hf_router": Played(
        roles=_ALL_ROLES, quirks=Quirks(loose=True, reasoning="both"), error="string"
    ),
    "openrouter": Played(
        path="/api/v1/chat/completions",
        roles=_ALL_ROLES,
        refuses=frozenset({"n"}),
        quirks=Quirks(
            reasoning="reasoning", reason_twice=True, comments=True, bill={"cost": 1.5e-7}
        ),
        error="int_code",
    ),
    "turnpike": Played(roles=_ALL_ROLES, quirks=Quirks(bill={"cost": 1.5e-7})),
    "ollama": Played(
        quirks=Quirks(index="zero", arguments="object", reasoning="reasoning"),
        **(_OWN | {"refuses": _NO_LIMIT | {"n", "logit_bias", "tool_choice"}}),
    ),
    "vllm": Played(needs_key=False, quirks=Quirks(names="empty", ids="random"), error="object"),
    "llama_server": Played(
        quirks=Quirks(newline="\r\n", done="data:[DONE]"), error="int_code", **_OWN
    ),
    "lm_studio": Played(quirks=Quirks(ids="every", names="every"), error="string", **_OWN),
    "sglang": Played(needs_key=False, quirks=Quirks(nulls=True), error="object"),
    "tgi": Played(
        quirks=Quirks(ids="never", reasons={"stop": "eos_token"}, arguments="object"),
        error="string",
        **_OWN,
    ),
}
"""By the plugin's name."""


def error_body(form: str, words: str, param: str | None) -> Any:
    """An error as providers write them."""
    forms: dict[str, Any] = {
        "openai": {"error": {"message": words, "type": "x", "param": param, "code": None}},
        "int_code": {"error": {"code": 400, "message": words, "type": "BadRequestError"}},
        "string": {"error": words, "error_type": "validation"},
        "detail": {"detail": words},
        "object": {"object": "error", "message": words, "type": "x", "param": param, "code": 400},
        "top_level": {"message": words, "type": "x", "param": param, "code": "wrong_api_format"},
        "xai": {"code": "Client specified an invalid argument", "error": words},
        "extra": {"detail": [{"type": "extra_forbidden", "loc": ["body", param], "msg": words}]},
    }
    return forms[form]


def serve(name: str, listing: Any = None) -> Serving:
    """The provider of a preset; ``listing`` is the answer to any GET."""
    played = PLAYED[name]

    async def play(asked: Asked, reply: Reply) -> None:
        if played.needs_key or played.key_header in asked.headers:
            bearer = "Bearer " if played.key_header == "authorization" else ""
            if asked.headers.get(played.key_header) != bearer + KEY:
                await reply.answer(401, error_body(played.error, f"bad key {KEY}", None))
                return
        if any(asked.headers.get(header) != value for header, value in played.headers):
            await reply.answer(400, error_body(played.error, "headers are missing", None))
        elif asked.method == "GET" and listing is not None:
            await reply.answer(200, listing)
        elif (asked.method, asked.path) != ("POST", played.path):
            await reply.answer(404, {"error": "no such route"})
        else:
            await _chat(played, asked.json(), reply)

    return Serving(play)


async def _chat(played: Played, body: dict[str, Any], reply: Reply) -> None:
    wrong = _what_is_wrong(played, body)
    if wrong is not None:
        words, param = wrong
        await reply.answer(400, error_body(played.error, words, param))
        return
    said = [said_to(body)] * int(body.get("n") or 1)
    spent = Spent(completion=7, cached=1, thought=2 if said[0].thoughts else 0)
    if not body["stream"]:
        await reply.answer(200, whole(said, spent, played.quirks))
        return
    await reply.begin()
    for event in events(said, spent, played.quirks):
        await reply.send(event)
    await reply.end()


def said_to(body: dict[str, Any]) -> Said:
    """The answer to a request: tools are called where there are any."""
    asks = str(body["messages"][-1]["content"])
    thoughts = THOUGHTS if "think" in asks else ()
    if body.get("tools"):
        return Said(thoughts=thoughts, calls=CALLS, reason="tool_calls")
    return Said(text=TEXT, thoughts=thoughts, reason="length" if "long" in asks else "stop")


def _what_is_wrong(played: Played, body: dict[str, Any]) -> tuple[str, str | None] | None:
    given = set(body)
    unknown = given & played.refuses
    if played.takes is not None:
        unknown |= given - played.takes
    if unknown:
        name = min(unknown)
        return f"Extra inputs are not permitted: {name}", name
    if "fail" in str(body["messages"][-1]["content"]):
        return "the request is no good", None
    for name, taken in played.values.items():
        if name in given and body[name] not in taken:
            return f"{name} is not supported", name
    form = body.get("response_format") or {}
    if form and _schema_form(form) != played.schema:
        return "response_format is not supported", "response_format"
    for message in body["messages"]:
        if message["role"] not in played.roles:
            return f"unknown role {message['role']}", "messages"
        if played.fields is not None and (extra := set(message) - played.fields):
            return f"property {min(extra)} is unsupported", "messages"
        if message["role"] in played.strings and isinstance(message.get("content"), list):
            return "content must be a string", "messages"
    return None


def _schema_form(form: dict[str, Any]) -> str:
    if form["type"] == "json_object":
        return "json_object"
    return "flat" if "schema" in form else "json_schema"
