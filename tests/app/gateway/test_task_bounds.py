"""The bound is a bound: whatever a provider may count of a task costs no more than the hold."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.billing.rating import rate
from app.gateway.sound_length import sound_ms_max
from app.gateway.task_bounds import (
    HEARD_MS_MIN,
    HEARD_MS_UNKNOWN,
    TOKENS_PER_PAIR,
    TOKENS_PER_TEXT,
    VIDEO_S_DEFAULT,
    heard_ms_max,
    task_bounds,
    tokens_of_texts,
    usage_max,
    video_s_max,
)
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from plugins.contract import Offer, Price, Usage
from plugins.tasks import (
    Document,
    EmbeddingRequest,
    ImageRequest,
    Media,
    RerankRequest,
    SpeechRequest,
    TaskRequest,
    TranscriptionRequest,
    VideoRequest,
)
from tests.app.gateway.recordings import MP3_128K_FRAME, wav

figures = st.integers(0, 10**12)
prices = st.builds(
    Price,
    input=figures,
    output=figures,
    cache_read=st.none() | figures,
    cache_write=st.none() | figures,
    audio_input=st.none() | figures,
    audio_output=st.none() | figures,
    reasoning=st.none() | figures,
    image=st.integers(0, 10**16),
    character=figures,
    audio_second=figures,
    video_second=figures,
    per_request=figures,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
tokens = st.lists(st.integers(0, 2**31), max_size=20)


def offer(price: Price, **fields: Any) -> Offer:
    return Offer(model="m", provider="p", upstream_id="m", price=price, **fields)


def holds(request: TaskRequest, used: Usage, price: Price, body_bytes: int = 0) -> None:
    """What was used is paid by the hold, and by nothing less than all of it."""
    limits = task_bounds(request, body_bytes, (offer(price),))
    assert rate(used, price) <= limits.amount_nano_usd
    assert limits.floor_nano_usd == limits.comfortable_nano_usd == limits.amount_nano_usd


@given(
    texts
    | st.lists(texts | tokens, min_size=1, max_size=9)
    | st.lists(st.integers(0, 9), min_size=1),
    st.integers(0, TOKENS_PER_TEXT),
    prices,
)
def test_embeddings_are_bounded_by_bytes_and_tokens(
    given_texts: Any, around: int, price: Price
) -> None:
    request = EmbeddingRequest(model="m", input=given_texts)
    # As a vocabulary of bytes counts them: the shortest pieces that there are.
    pieces = [given_texts] if isinstance(given_texts, str) else given_texts
    read = sum(
        1 if isinstance(each, int) else len(each.encode() if isinstance(each, str) else each)
        for each in pieces
    )
    count = len(tokens_of_texts(request))
    assert sum(tokens_of_texts(request)) == read + TOKENS_PER_TEXT * count
    used = Usage(input_tokens=read + around * count)
    holds(request, used, price)


@given(texts.filter(bool), st.lists(texts, min_size=1, max_size=9), prices)
def test_a_reranker_reads_the_query_beside_each_document(
    query: str, documents: list[str], price: Price
) -> None:
    request = RerankRequest(model="m", query=query, documents=list(documents))
    # As a vocabulary of bytes counts them, with the words that Qwen3-Reranker puts around a pair.
    read = sum(len(query.encode()) + len(each.encode()) + 80 for each in documents)
    holds(request, Usage(input_tokens=read), price)


def test_a_pair_longer_than_the_context_is_cut() -> None:
    request = RerankRequest(model="m", query="q" * 100, documents=["x" * 10_000, Document("y")])
    limits = task_bounds(request, 0, (offer(Price(input=10**6), context_length=512),))
    assert limits.amount_nano_usd == 512 + 101 + TOKENS_PER_PAIR


def test_a_text_longer_than_the_context_is_cut() -> None:
    request = EmbeddingRequest(model="m", input=["x" * 10_000, "y" * 100, [1] * 700])
    price = Price(input=10**6)  # a nano-USD a token
    whole = task_bounds(request, 0, (offer(price),)).amount_nano_usd
    cut = task_bounds(request, 0, (offer(price, context_length=512),)).amount_nano_usd
    assert whole == 10_000 + 100 + 700 + 3 * TOKENS_PER_TEXT
    assert cut == 512 + 100 + TOKENS_PER_TEXT + 512


@given(
    texts,
    st.none() | texts,
    st.none() | st.integers(1, 10),
    st.sampled_from([(None, 7_024), ("1024x1024", 7_024), ("1024x1536", 6_208)])
    | st.just(("3584x2048", 12_329)),
    prices,
    st.data(),
)
def test_images_are_those_asked_for(
    prompt: str,
    negative: str | None,
    n: int | None,
    size: tuple[str | None, int],
    price: Price,
    data: st.DataObject,
) -> None:
    request = ImageRequest(model="m", prompt=prompt, negative_prompt=negative, n=n, size=size[0])
    made = data.draw(st.integers(0, n or 1))
    read = len(prompt.encode()) + len((negative or "").encode())
    # The dearest pictures that OpenAI publishes, of that size.
    used = Usage(images=made, output_tokens=made * size[1], input_tokens=read)
    holds(request, used, price)


def test_pictures_to_start_from_are_read() -> None:
    plain = ImageRequest(model="m", prompt="a cat")
    given_some = replace(plain, image=[Media(data=b"1"), Media(data=b"2")], mask=Media(data=b"3"))
    more = usage_max(given_some, 0).input_tokens - usage_max(plain, 0).input_tokens
    assert more == 3 * 16_384
    assert usage_max(plain, 0).images == 1


@given(texts, st.none() | texts, st.sampled_from([None, 0.25, 0.5, 1.0, 4.0]), prices)
def test_speech_is_bounded_by_the_bytes_of_its_text(
    text: str, instructions: str | None, speed: float | None, price: Price
) -> None:
    request = SpeechRequest(model="m", input=text, instructions=instructions, speed=speed)
    for count in (len(text), len(text.encode()), len(text.encode("utf-16-le")) // 2):
        holds(request, Usage(characters=count), price)
    # 0.4 s for each byte, twice as long at half the speed, at 1,250 tokens a minute.
    spoken = int(len(text.encode()) * 0.384 * 1250 / 60 / min(speed or 1, 1))
    used = Usage(
        input_tokens=len(text.encode()) + len((instructions or "").encode()),
        audio_output_tokens=spoken,
    )
    holds(request, used, price)


@given(st.integers(0, 300_000), st.none() | texts, prices)
def test_transcripts_are_bounded_by_the_length_of_the_sound(
    samples: int, prompt: str | None, price: Price
) -> None:
    request = TranscriptionRequest(model="m", file=Media(data=wav(samples)), prompt=prompt)
    lasts_ms = -(-samples * 1000 // 16_000)
    billed_ms = -(-max(lasts_ms, 10_000) // 1000) * 1000  # whole seconds, ten at least
    holds(request, Usage(audio_ms=billed_ms), price)
    # Google's 32 tokens a second, and very fast speech.
    used = Usage(
        audio_input_tokens=32 * lasts_ms // 1000,
        input_tokens=len((prompt or "").encode()),
        output_tokens=lasts_ms // 100,
    )
    holds(request, used, price)


def test_how_much_is_heard() -> None:
    def heard(file: Media, body_bytes: int = 0) -> int:
        return heard_ms_max(TranscriptionRequest(model="m", file=file), body_bytes)

    assert heard(Media(data=wav(16_000))) == HEARD_MS_MIN
    assert heard(Media(data=wav(16_000 * 61 + 1))) == 62_000
    assert heard(Media(data=MP3_128K_FRAME * 2_000)) == 53_000
    unknown = bytes(750 * 100)
    assert heard(Media(data=unknown)) == sound_ms_max(unknown) == 100_000
    assert heard(Media(url="https://example.com/talk.mp3")) == HEARD_MS_UNKNOWN
    assert heard(Media(url="u"), 750 * 3 * 3_600) == 3 * 3_600_000


@given(texts, st.none() | st.integers(1, 60), st.sampled_from([None, "1280x720"]), prices)
def test_video_is_as_long_as_asked_for(
    prompt: str, seconds: int | None, size: str | None, price: Price
) -> None:
    asked = None if seconds is None else str(seconds)
    request = VideoRequest(model="m", prompt=prompt, seconds=asked, size=size)
    lasts = seconds or VIDEO_S_DEFAULT
    # Seedance's formula, at 24 frames a second.
    pixels = 1280 * 720 if size else 1920 * 1080
    used = Usage(video_ms=lasts * 1000, output_tokens=pixels * 24 * lasts // 1024)
    holds(request, replace(used, input_tokens=len(prompt.encode())), price)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, VIDEO_S_DEFAULT),
        ({"seconds": "0"}, VIDEO_S_DEFAULT),
        ({"seconds": "4"}, 4),
        ({"num_frames": 12}, VIDEO_S_DEFAULT),
        ({"num_frames": 121}, 21),
        ({"seconds": "4", "num_frames": 121}, 21),
        ({"seconds": "999"}, 999),
    ],
)
def test_seconds_of_video(fields: dict[str, Any], seconds: int) -> None:
    request = VideoRequest(model="m", prompt="a cat", **fields)
    assert video_s_max(request) == seconds
    assert usage_max(request, 0).video_ms == seconds * 1000


REQUESTS: list[TaskRequest] = [
    EmbeddingRequest(model="m", input=["one", "two"]),
    RerankRequest(model="m", query="where?", documents=["here", Document("there")]),
    ImageRequest(model="m", prompt="a cat", n=2, num_inference_steps=120),
    VideoRequest(model="m", prompt="a cat", seconds="5"),
    SpeechRequest(model="m", input="hello"),
    TranscriptionRequest(model="m", file=Media(data=wav(16_000))),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.task)
def test_where_compute_is_priced_a_smaller_hold_will_do(request_: TaskRequest) -> None:
    price = Price(compute_per_second=120_000)
    limits = task_bounds(request_, 0, (offer(price),))
    assert 120_000 < limits.floor_nano_usd < limits.amount_nano_usd
    assert limits.floor_nano_usd == limits.comfortable_nano_usd
    # Twice the work, or more of it, needs more.
    if isinstance(request_, ImageRequest):
        fewer = task_bounds(replace(request_, num_inference_steps=50), 0, (offer(price),))
        assert fewer.amount_nano_usd < limits.amount_nano_usd


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.task)
def test_the_dearest_offer_counts_and_free_ones_do_not(request_: TaskRequest) -> None:
    cheap, dear = Price(per_request=5), Price(per_request=9, compute_per_second=1)
    gift = offer(Price(free=True, per_request=10**9))
    assert task_bounds(request_, 0, (gift,)).amount_nano_usd == 0
    assert task_bounds(request_, 0, ()).amount_nano_usd == 0
    both = task_bounds(request_, 0, (offer(cheap), gift, offer(dear)))
    assert both.amount_nano_usd == task_bounds(request_, 0, (offer(dear),)).amount_nano_usd
    # A cheap offer beside it is all or nothing too.
    most = Price(per_request=AMOUNT_NANO_USD_MAX * 2)
    assert task_bounds(request_, 0, (offer(most),)).amount_nano_usd == AMOUNT_NANO_USD_MAX


@given(st.sampled_from(REQUESTS), st.lists(prices, max_size=3), st.integers(0, 10**6))
def test_less_is_never_more(request: TaskRequest, found: list[Price], per_second: int) -> None:
    some = tuple(offer(replace(price, compute_per_second=per_second)) for price in found)
    limits = task_bounds(request, 10, some)
    assert 0 <= limits.floor_nano_usd <= limits.comfortable_nano_usd <= limits.amount_nano_usd
    used = usage_max(request, 10)
    for each in some:
        assert rate(used, replace(each.price, compute_per_second=0)) <= limits.amount_nano_usd
