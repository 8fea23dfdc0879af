"""The local bench at the level of the engine: no HTTP, no process between. Prints JSON lines."""

import json
import sys
import time

from app.config import STARTER_SOURCE
from local_runtime.engines.builtin import make_engine
from local_runtime.engines.contract import EngineRequest, EngineSpec, Failed, Finished, Piece
from local_runtime.store.sources import file_of
from plugins.chat import ChatRequest, Message
from tests.bench.talk import MODEL, PROMPT, STREAMS, TOKENS_MAX, Answer, best, figures


def main(rounds: int) -> None:
    """Load the starter model, then answer the prompt in so many streams at once."""
    engine = make_engine("llama")
    path = str(file_of(STARTER_SOURCE))
    engine.load(EngineSpec(engine="llama", path=path, sequences_max=max(STREAMS)), lambda _: None)
    request = ChatRequest(
        model=MODEL,
        messages=[Message(role="user", content=PROMPT)],
        max_tokens=TOKENS_MAX,
        temperature=0.0,
    )

    def one_round(streams: int) -> dict[str, float]:
        began = time.perf_counter()
        firsts: dict[str, float] = {}
        answers: list[Answer] = []
        for n in range(streams):
            engine.submit(EngineRequest(request_id=str(n), chat=request))
        while engine.has_work:
            for event in engine.step():
                now_s = time.perf_counter() - began
                if isinstance(event, Failed):
                    raise RuntimeError(f"the engine refused: {event.message} {event.detail}")
                if isinstance(event, Piece):
                    firsts.setdefault(event.request_id, now_s)
                elif isinstance(event, Finished):
                    first_s = firsts[event.request_id]
                    tokens = event.usage.output_tokens
                    answers.append(Answer(first_s=first_s, end_s=now_s, tokens=tokens))
        return figures(answers)

    one_round(1)
    for streams in STREAMS:
        found = best([one_round(streams) for _ in range(rounds)])
        print(json.dumps({"bench": "local", "level": "engine", "model": MODEL, **found}))
    engine.unload()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
