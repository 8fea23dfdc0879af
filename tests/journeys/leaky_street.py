"""An appliance full of planted secrets, between clients and a provider that repeats all it hears.

Everything that anybody is told on the way is searched for the secrets as it comes.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from plugins.builtin import BUILTIN
from tests.appliance import RunningAppliance, appliance
from tests.journeys.canaries import SCENES, Canaries, tell_all
from tests.upstreams.serving import Serving

HEAD = """
[server]
port = 0
log_level = "debug"
body_bytes_max = 65536
{logs}
[routing]
probes = false
[secrets]
master_key = "env:TP_LEAK_MASTER"
old_master_keys = ["env:TP_LEAK_OLD_MASTER"]
[webhook]
url = "{origin}/hook"
secret = "env:TP_LEAK_HOOK"
[tiers.tiny]
monthly_credit_usd = "1.00"
"""
PROVIDER = """
[[providers]]
id = "{id}"
plugin = "openai_compatible"
base_url = "{origin}/{scene}/v1"
api_key = "env:TP_LEAK_OPERATOR"
api_keys = [
    {{ key = "env:TP_LEAK_POOL_ONE", weight = 2 }},
    {{ key = "file:{pool_file}" }},
]
{billing}
[[providers.models]]
id = "acme/{scene}"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
[[providers.models]]
id = "acme/everywhere"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""
DEAR = """
[[providers]]
id = "dear"
plugin = "openai_compatible"
base_url = "{origin}/ok/v1"
api_key = "env:TP_LEAK_OPERATOR"
[[providers.models]]
id = "acme/dear"
price = {{ input = "0.20", output = "0.60", per_request = "0.45" }}
"""
# Adapters with wires of their own: how they fail is what they could tell.
OTHERS = [plugin.name for plugin in BUILTIN if plugin.name in {"anthropic", "gemini"}]
REFUSALS = ("s400-error", "s401-error", "s429-error", "s500-error")
OTHER = """
[[providers]]
id = "{plugin}-{scene}"
plugin = "{plugin}"
base_url = "{origin}/{scene}"
api_key = "env:TP_LEAK_OPERATOR"
[[providers.models]]
id = "{plugin}/{scene}"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""
BILLING = 'billing = {{ url = "{origin}/billing", api_key = "env:TP_LEAK_BILLING" }}'
PROMPTS = ("prompt", "system prompt", "broken body", "image url")


def provider_id(scene: str) -> str:
    return scene.replace("_", "-")


@dataclass
class Street:
    """The appliance, its provider, and all that anybody was told."""

    running: RunningAppliance
    provider: Serving
    canaries: Canaries
    keys: dict[str, str] = field(default_factory=dict)

    async def operator(self, method: str, path: str, body: object = None) -> Any:
        """A request of the command line's; its answer is looked at like any other."""
        found = json.loads((self.running.data_dir / "server.json").read_text())
        self.canaries.planted["admin token"] = found["token"]
        answer = await self.ask(method, path, found["token"], body)
        assert answer.is_success, answer.text
        return answer.json()

    async def ask(
        self,
        method: str,
        path: str,
        bearer: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        may_hold: tuple[str, ...] = (),
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request; every secret that its answer holds is noted."""
        sent = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        async with httpx.AsyncClient(
            base_url=self.running.base_url, timeout=60, trust_env=False
        ) as http:
            answer = await http.request(
                method,
                path,
                json=body if content is None else None,
                content=content,
                params=query,
                headers=sent | (headers or {}),
            )
        told = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        self.canaries.look(f"the answer to {method} {path} {body}"[:200], told, *PROMPTS)
        self.canaries.look(
            f"the answer {answer.status_code} to {method} {path} {body}"[:200],
            answer.content,
            *may_hold,
        )
        return answer

    async def chat(self, who: str, model: str, *, stream: bool, **more: str) -> httpx.Response:
        messages = [
            {"role": "system", "content": self.canaries.planted["system prompt"]},
            {"role": "user", "content": f"Hello {self.canaries.planted['prompt']}"},
        ]
        body = {"model": model, "messages": messages, "stream": stream}
        baggage = f"k={self.canaries.planted['baggage']}"  # which a tracer could take along
        headers = {"X-Turnpike-Explain": "1", "Baggage": baggage, **more}
        return await self.ask(
            "POST",
            "/v1/chat/completions",
            self.keys[who],
            body,
            headers=headers,
            may_hold=PROMPTS,
        )

    async def cli(self, *words: str) -> str:
        """A command; its output is looked at."""
        out = await asyncio.to_thread(self.running.cli, *words)
        self.canaries.look(f"the output of turnpike {' '.join(words)}", out)
        return out

    async def heard_from(self, *paths: str) -> None:
        """Wait until the appliance has been at these addresses of its own accord."""
        async with asyncio.timeout(60):
            while missing := set(paths) - {asked.path for asked in self.provider.asked}:
                await asyncio.sleep(0.05)
                print(missing)

    def look_at_files(self, when: str) -> list[str]:
        """Every file of the data directory but the one that is there to hold the admin token."""
        seen = []
        for path in self.running.data_dir.rglob("*"):
            if path.is_file() and path.name != "server.json":
                self.canaries.look(f"{path.name} {when}", path.read_bytes())
                seen.append(path.name)
        return seen


@asynccontextmanager
async def street(tmp_path: Path, logs: str = "") -> AsyncIterator[Street]:
    canaries = Canaries()
    canaries.plant("baggage")
    pool_file = tmp_path / "pool.key"
    pool_file.write_text(canaries.plant("pool key two") + "\n")
    env = {
        "TP_LEAK_OPERATOR": canaries.plant("operator's key"),
        "TP_LEAK_POOL_ONE": canaries.plant("pool key one"),
        "TP_LEAK_BILLING": canaries.plant("billing key"),
        "TP_LEAK_COLLECTOR": canaries.plant("collector's token"),
        "TP_LEAK_HOOK": "whsec_" + canaries.plant("webhook secret", _random_base64()),
        "TP_LEAK_MASTER": canaries.plant("master key", _random_base64()),
        "TP_LEAK_OLD_MASTER": canaries.plant("old master key", _random_base64()),
    }
    async with Serving(tell_all) as provider:
        origin = provider.origin
        config = HEAD.format(origin=origin, logs=logs) + DEAR.format(origin=origin)
        for scene in SCENES:
            config += PROVIDER.format(
                id=provider_id(scene),
                scene=scene,
                origin=origin,
                pool_file=pool_file,
                billing=BILLING.format(origin=origin) if scene == "odd_header" else "",
            )
        for plugin in OTHERS:
            for scene in REFUSALS:
                config += OTHER.format(plugin=plugin, scene=scene, origin=origin)
        started = appliance(tmp_path / "data", config, env=env, program="tests.journeys.hurried")
        running = await asyncio.to_thread(started.__enter__)
        try:
            yield Street(running, provider, canaries)
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
            # Once this is answered, the provider has met all that were in its queue before.
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.get(f"{origin}/s500-bare")


def _random_base64() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
