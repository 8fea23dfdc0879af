"""Planted secrets, where each was found, and a provider that tells all that it was sent."""

import base64
import json
import re
import secrets
from dataclasses import dataclass, field

from tests.upstreams.serving import Asked, Reply

FRAGMENT_LENGTH = 14
"""Of a secret that was cut short: its beginning is enough to know it by."""


@dataclass
class Canaries:
    """Secrets by name, all different from their first characters on."""

    planted: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def plant(self, name: str, secret: str = "") -> str:
        """A fresh secret, or one that was made elsewhere. Random ones look like nobody's keys, so
        that only those who know them can take them out."""
        made = secret or secrets.token_hex(24)
        assert name not in self.planted
        self.planted[name] = made
        return made

    def look(self, where: str, content: str | bytes, *but: str) -> None:
        """Note each planted secret, whole, cut short, or in base64; ``but`` may be there."""
        data = content.encode("utf-8", "replace") if isinstance(content, str) else content
        for name, secret in self.planted.items():
            if name in but:
                continue
            for form in forms(secret):
                at = data.find(form)
                if at >= 0:
                    around = data[max(0, at - 80) : at].decode("utf-8", "replace")
                    self.found.append(f"{name} in {where} behind {around[-80:]!r}")
                    break


def forms(secret: str) -> list[bytes]:
    """What it may look like: its beginning as it is, and in each alignment of base64."""
    data = secret.encode()
    shifted = [base64.b64encode(data[skip : skip + 12]) for skip in range(3)]
    return [data[:FRAGMENT_LENGTH], *shifted]


# What a provider does to a request, by the first part of its path.
STATUSES = (301, 302, 400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 529)
FORMS = ("error", "bare", "detail", "text", "late")
SCENES = (
    "ok",
    *(f"s{status}-{form}" for status in STATUSES for form in FORMS[:2]),
    *(f"s{status}-{form}" for status in (400, 401, 500) for form in FORMS[2:]),
    "html",
    "garbage",
    "error_in_200",
    "error_event",
    "error_later",
    "cut",
    "odd_usage",
    "odd_header",
)
WORDS = "one two three four five six seven eight"


async def tell_all(asked: Asked, reply: Reply) -> None:
    """Play the scene that the path names; whatever is not the answer repeats the request."""
    scene = asked.path.split("/")[1]
    said = " ".join([asked.target, *(f"{k}: {v}" for k, v in asked.headers.items())])
    if re.match(r"s4(00|13|22)", scene):  # many say what was wrong with the body by repeating it
        said = f"{said} {asked.body.decode('utf-8', 'replace')}"
    key = asked.headers.get("authorization", "").removeprefix("Bearer ")
    key = key or asked.headers.get("x-api-key", "none")
    streams = b'"stream":true' in asked.body.replace(b" ", b"")
    refusal = re.fullmatch(r"s(\d{3})-(\w+)", scene)
    if refusal:
        location = [("Location", f"http://127.0.0.1:1/?key={key}")]
        body, kind = _error(refusal[2], said, key)
        more = [("WWW-Authenticate", f"Bearer {key}"), ("Retry-After", "0"), *location]
        await reply.answer(int(refusal[1]), body, more, kind)
    elif scene == "html":
        await reply.answer(200, f"<html>{said}</html>", kind="text/html")
    elif scene == "garbage":
        await reply.answer(200, ('{"choices": [' + said).encode())
    elif scene == "error_in_200":
        await reply.answer(200, {"error": {"message": said, "code": key, "type": key}})
    elif scene == "billing":
        await reply.answer(500, said)
    elif scene == "hook":
        await reply.answer(503, said)
    elif streams:
        await _stream(scene, reply, said, key)
    else:
        await _whole(scene, reply, said, key)


def _error(form: str, said: str, key: str) -> tuple[bytes, str]:
    if form == "text":
        return said.encode(), "text/plain"
    if form == "late":  # the key lies across each place where a body might be cut, behind nothing
        body = b""
        for end in (512, 1024, 2048, 4096):
            body = body.ljust(end - len(key) // 2, b" ") + key.encode()
        return body, "text/plain"
    told = {"message": f"no: {key} {said}", "type": key, "code": key, "param": key}
    by_form = {"error": {"error": told}, "bare": told, "detail": {"detail": said}}
    return json.dumps(by_form[form]).encode(), "application/json"


async def _whole(scene: str, reply: Reply, said: str, key: str) -> None:
    message = {"role": "assistant", "content": WORDS}
    body = {
        "id": key,
        "model": key,
        "system_fingerprint": key,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 8},
    }
    if scene == "odd_usage":
        body["usage"] = {"prompt_tokens": said, "completion_tokens": key}
    headers = [("X-Request-Id", key), ("Inference-Id", "cost-of-it")]
    if scene == "odd_header":
        headers += [("X-Compute-Time", key), ("Set-Cookie", f"k={key}")]
    data = json.dumps(body).encode()
    if scene == "cut":
        await reply.begin(200, "application/json")
        await reply.send(data[:-40] + said.encode())
        await reply.close()
    await reply.answer(200, data, headers)


async def _stream(scene: str, reply: Reply, said: str, key: str) -> None:
    await reply.begin(headers=[("X-Request-Id", key), ("Inference-Id", "cost-of-it")])
    await reply.send(f": {said.splitlines()[0]}\n\n")
    if scene == "error_event":
        await reply.event({"error": {"message": said, "code": key, "type": key}})
    for number, word in enumerate(WORDS.split()):
        if number == 3 and scene == "error_later":
            await reply.event({"error": {"message": said, "code": key, "type": key}})
        if number == 3 and scene == "cut":
            await reply.send(f"data: {said}")
            await reply.close()
        delta = {"role": "assistant", "content": f"{word} "}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        await reply.event({"id": key, "model": key, "choices": [choice]})
    usage = {"prompt_tokens": 3, "completion_tokens": 8}
    if scene == "odd_usage":
        usage = {"prompt_tokens": said, "completion_tokens": key}  # type: ignore[dict-item]
    done = {"index": 0, "delta": {}, "finish_reason": "stop"}
    await reply.event({"id": key, "choices": [done]})
    await reply.event({"id": key, "choices": [], "usage": usage})
    await reply.event("[DONE]")
    await reply.end()
