"""wrk as the load generator: 64 connections, a 300-byte chat body, an API key."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 64
BODY_BYTES = 300

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = [==[{body}]==]

function done(summary, latency, requests)
  io.write(string.format(
    '\\nRESULT {{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.status, summary.errors.timeout))
end
"""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One run of wrk."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int

    def figures(self) -> dict[str, float]:
        """For the JSON line."""
        return {
            "requests_per_s": round(self.requests_per_s),
            "p50_ms": round(self.p50_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
            "max_ms": round(self.max_ms, 1),
            "errors": self.errors,
        }


def chat_body(model: str, *, stream: bool) -> str:
    """A chat request of exactly 300 bytes."""
    message = {"role": "user", "content": ""}
    body: dict[str, object] = {"model": model, "messages": [message], "max_tokens": 100}
    if stream:
        body["stream"] = True
    words = "Tell me, in a few plain words, what a turnpike was and who had to pay at it. "
    message["content"] = (words * 8)[: BODY_BYTES - len(json.dumps(body))]
    return json.dumps(body)


def run_wrk(wrk: str, url: str, *, key: str, body: str, seconds: int, folder: Path) -> Load:
    """Load ``url`` for some seconds."""
    script = folder / "load.lua"
    script.write_text(_SCRIPT.format(key=key, body=body))
    done = subprocess.run(
        [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found: dict[str, int] = json.loads(line.removeprefix("RESULT "))
    return Load(
        requests=found["requests"],
        requests_per_s=found["requests"] * 1e6 / found["duration_us"],
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        max_ms=found["max_us"] / 1000,
        errors=sum(found[name] for name in ("connect", "read", "write", "status", "timeout")),
    )
