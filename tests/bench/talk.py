"""The prompt of the local bench, and the figures of a set of answers, at whatever level."""

import statistics
from dataclasses import dataclass

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPT = "Write a long story about an old lighthouse keeper and the ships that pass in the night."
TOKENS_MAX = 128
STREAMS = (1, 8)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer: seconds from the start of the bench's round, and tokens."""

    first_s: float
    end_s: float
    tokens: int


def figures(answers: list[Answer]) -> dict[str, float]:
    """Output tokens per second of all streams together, and the wait for the first token."""
    tokens = sum(answer.tokens for answer in answers)
    firsts = [answer.first_s for answer in answers]
    return {
        "streams": len(answers),
        "tokens": tokens,
        "tokens_per_s": round(tokens / max(answer.end_s for answer in answers), 1),
        "first_token_ms_p50": round(statistics.median(firsts) * 1000, 1),
        "first_token_ms_max": round(max(firsts) * 1000, 1),
    }


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The round with the most tokens per second: what the machine can do when left alone."""
    return max(rounds, key=lambda found: found["tokens_per_s"])
