"""What is measured of a server of local models: one round of each scenario, as plain figures."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from tests.bench.asking import Answer, Refused
from tests.bench.prompts import chat, sentences, short

TOKENS_MAX = 128
PREFIX_CLIENTS = 4
PREFIX_TURNS = 3
PREFIX_WORDS = 800
PREFIX_TOKENS_MAX = 16
GAP_STREAMS = 8
GAP_PROMPT_WORDS = 3200
GAP_TOKENS_BEFORE = 16

Figures = dict[str, float]


class Target(Protocol):
    """Who is asked; see ``HttpTarget.ask``."""

    name: str

    async def ask(
        self,
        chat: dict[str, Any],
        *,
        begun: "asyncio.Future[None] | None" = None,
        enough: asyncio.Event | None = None,
    ) -> Answer: ...


Scenario = Callable[[Target, str], Awaitable[Figures]]


def streams(count: int, *, temperature: float) -> Scenario:
    """So many clients ask at once, each something else, and get ``TOKENS_MAX`` tokens each.

    ``tokens_per_s``: all tokens by the time from the first request to the end of the last answer,
    prompts included. ``generation_tokens_per_s``: of the time in which all of them generate.
    """

    async def run(target: Target, seed: str) -> Figures:
        asked = [
            {**chat(short(seed, n), max_tokens=TOKENS_MAX), "temperature": temperature}
            for n in range(count)
        ]
        answers = await asyncio.gather(*(target.ask(each) for each in asked))
        for answer in answers:
            if answer.output_tokens != TOKENS_MAX:
                raise Refused(f"{answer.output_tokens} tokens instead of {TOKENS_MAX}")
        wall_s = max(a.end_s for a in answers) - min(a.sent_s for a in answers)
        firsts = [answer.first_s for answer in answers]
        return {
            "tokens_per_s": TOKENS_MAX * count / wall_s,
            "generation_tokens_per_s": _together(answers),
            "first_token_ms_p50": 1000 * statistics.median(firsts),
            "first_token_ms_max": 1000 * max(firsts),
            "prompt_tokens_mean": statistics.mean(a.prompt_tokens for a in answers),
            "cached_tokens": sum(a.cached_tokens for a in answers),
        }

    return run


def _together(answers: Sequence[Answer]) -> float:
    """Tokens per second while every one of the answers had begun and none was over."""
    begin_s = max(answer.token_s[0] for answer in answers)
    end_s = min(answer.token_s[-1] for answer in answers)
    tokens = 0.0
    for answer in answers:
        inside = sum(begin_s < at <= end_s for at in answer.token_s)
        tokens += inside * answer.output_tokens / len(answer.token_s)
    return tokens / (end_s - begin_s) if end_s > begin_s else 0.0


async def shared_prefix(target: Target, seed: str) -> Figures:
    """Four clients with one system prompt of about 1,000 tokens, which the server has not seen
    before, ask at the same moment, and each again when it has its answer.

    ``first_wave``: the requests that came while nobody had read the prompt yet.
    """
    system = sentences(f"system {seed}", PREFIX_WORDS)

    async def client(number: int) -> list[Answer]:
        return [
            await target.ask(
                chat(
                    short(f"{seed}/{turn}", number),
                    system=system,
                    max_tokens=PREFIX_TOKENS_MAX,
                )
            )
            for turn in range(PREFIX_TURNS)
        ]

    clients = await asyncio.gather(*(client(number) for number in range(PREFIX_CLIENTS)))
    answers = [answer for each in clients for answer in each]
    firsts = [answer.first_s for answer in answers]
    wave = [each[0].first_s for each in clients]
    return {
        "first_token_ms_p50": 1000 * statistics.median(firsts),
        "first_token_ms_max": 1000 * max(firsts),
        "first_wave_ms_p50": 1000 * statistics.median(wave),
        "prompt_tokens_mean": statistics.mean(a.prompt_tokens for a in answers),
        "cached_tokens": sum(answer.cached_tokens for answer in answers),
    }


async def long_prompt(target: Target, seed: str) -> Figures:
    """Eight streams are generating when a prompt of about 4,000 tokens comes.

    Gaps are those between two tokens of one stream, from its coming to its first token.
    """
    loop = asyncio.get_running_loop()
    enough = asyncio.Event()
    begun = [loop.create_future() for _ in range(GAP_STREAMS)]
    talking = [
        loop.create_task(
            target.ask(chat(short(seed, n), max_tokens=3000), begun=begun[n], enough=enough)
        )
        for n in range(GAP_STREAMS)
    ]
    try:
        await asyncio.gather(*begun)
        await asyncio.sleep(0.5)
        asked = chat(sentences(f"long {seed}", GAP_PROMPT_WORDS), max_tokens=GAP_TOKENS_BEFORE)
        long = await target.ask(asked)
    finally:
        enough.set()
        answers = await asyncio.gather(*talking)
    come_s, read_s = long.sent_s, long.token_s[0]
    gaps = sorted(
        after - before
        for answer in answers
        for before, after in zip(answer.token_s, answer.token_s[1:], strict=False)
        if after > come_s and before < read_s
    )
    if not gaps:
        raise Refused("no stream said anything while the long prompt was read")
    return {
        "gap_ms_p50": 1000 * statistics.median(gaps),
        "gap_ms_p99": 1000 * gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))],
        "gap_ms_max": 1000 * gaps[-1],
        "long_first_token_ms": 1000 * long.first_s,
        "long_prompt_tokens": long.prompt_tokens,
        "tokens_meanwhile": len(gaps),
    }
