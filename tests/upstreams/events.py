"""The events of a played stream, one after the other, as a scene wants them."""

import asyncio
from collections.abc import AsyncIterator

from tests.upstreams.scenes import Answer, Booked, JsonObject, Scene, delta, tool_deltas


async def events(answer: Answer) -> AsyncIterator[str]:
    """The text of the stream, event by event; books each word as it is handed out."""
    scene, booked = answer.scene, answer.booked
    end = scene.newline * 2
    asked = bool((answer.request.get("stream_options") or {}).get("include_usage"))
    every = scene.usage == "every"
    pieces = _pieces(answer)
    if scene.usage == "first" and asked:
        booked.completion_tokens = len(answer.words)
        yield f"data: {answer.chunk([], answer.usage())}{end}"
    for number, (part, words) in enumerate(pieces):
        if scene.error_after == number:
            yield f'data: {{"error":{{"message":"failed midway","code":500}}}}{end}'
            return
        if scene.hang_after == number:
            await hang(booked)
        if scene.usage != "first":
            booked.completion_tokens += words
        if scene.comments:
            yield f": PROCESSING{end}"
        text = answer.chunk([part], answer.usage()) if every and asked else answer.chunk([part])
        if scene.half_line and number == 3:
            yield f"data: {text[: len(text) // 2]}"
            return
        if scene.line_bytes is not None and number == 1:
            yield "data: " + "x" * scene.line_bytes
        yield f"data: {text}{end}"
        await asyncio.sleep(scene.gap_s)
    while scene.forever:
        booked.completion_tokens += 1
        yield f"data: {answer.chunk([delta(0, {'content': ' on'})])}{end}"
        await asyncio.sleep(scene.gap_s)
    if asked and scene.usage not in ("first", "every", "never"):
        yield f"data: {answer.chunk([], answer.usage())}{end}"
    async for text in _last_events(scene, booked):
        yield f"{text}{end}"


async def _last_events(scene: Scene, booked: Booked) -> AsyncIterator[str]:
    if scene.hang_at == "end":
        await hang(booked)
    if scene.done:
        yield "data: [DONE]"


async def hang(booked: Booked) -> None:
    """Never go on."""
    booked.hanging = True
    await asyncio.Event().wait()


def _pieces(answer: Answer) -> list[tuple[JsonObject, int]]:
    """Choices' parts in order, each with the tokens it is billed as."""
    scene = answer.scene
    pieces: list[tuple[JsonObject, int]] = []
    for index in range(answer.choices_count()):
        pieces.append((delta(index, {"role": "assistant", "content": ""}), 0))
        for n in range(scene.reasoning if index == 0 else 0):
            pieces.append((delta(index, {"reasoning_content": " hm" if n else "hm"}), 1))
        if scene.tool_calls:
            pieces += [(delta(index, part), 1) for part in tool_deltas()]
        else:
            for n, word in enumerate(answer.words):
                pieces.append((delta(index, {"content": f" {word}" if n else word}), 1))
        if scene.finish:
            pieces.append((delta(index, {}, answer.finish_reason), 0))
    return pieces
