"""Templates: rendered as their models expect, and harmless whatever they try."""

from typing import Any

import pytest

from local_runtime.engines.contract import EngineLoadError, RequestRefused
from local_runtime.engines.llama import chat_template
from local_runtime.engines.llama.chat_template import ChatTemplate, check_variables
from local_runtime.engines.llama.conversation import Traits, conversation_of
from local_runtime.store.gguf import read_header
from tests.local_runtime.calls import chat, smollm_path


def render(source: str, **params: Any) -> str:
    """Without trying the template out first, which would meet some of these templates' attacks."""
    request = chat(**params)
    messages, tools = conversation_of(request, None, Traits(calls=True, results=True))
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(
        messages, tools=tools, variables=check_variables(request.chat_template_kwargs)
    )


def test_the_starter_models_own_template() -> None:
    source = read_header(smollm_path()).chat_template
    assert source is not None
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}],
        },
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    assert render(source, messages=messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi\n!<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_what_templates_of_transformers_use() -> None:
    source = (
        "{{ bos_token }}{%- for m in messages %}{% generation %}{{ m.content | trim }}"
        "{% endgeneration %}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{{ {'a': 'é<'} | tojson }}{{ 'x' * 3 }}{{ 1 ~ 'y' }}{{ eos_token }}"
        "{% if thinking is defined and thinking %} think{% endif %}"
    )
    assert render(source, text=" hi ") == '<s>hi{"a": "é<"}xxx1y</s>'
    kwargs = {"thinking": True}
    assert render(source, text="hi", chat_template_kwargs=kwargs).endswith(" think")


def test_a_template_may_refuse() -> None:
    with pytest.raises(RequestRefused, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


ATTACKS = {
    "endless loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "doubling with ~": "{% set n = namespace(x='aaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling with +": "{% set n = namespace(x='aaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "a long text": "{{ 'a' * 9999999999 }}",
    "a large power": "{{ 10 ** 99999999 }}",
    "wide formatting": "{{ '%999999999d' % 1 }}",
    "much output": "{% for i in range(99999) %}{% for j in range(999) %}"
    + "a" * 99
    + "{% endfor %}"
    "{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "the object model": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "changing the messages": "{{ messages.append(1) }}",
    "a wrong attribute": "{{ messages[0].no.such }}",
    "half a surrogate pair": r"{{ '\ud800' }}",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_fail_as_a_bad_request(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "RENDER_SECONDS_MAX", 0.3)
    monkeypatch.setattr(chat_template, "OUTPUT_CHARACTERS_MAX", 1024 * 1024)
    with pytest.raises(RequestRefused) as caught:
        render(ATTACKS[attack])
    assert caught.value.param == "messages"


def test_what_does_not_compile() -> None:
    with pytest.raises(EngineLoadError, match="does not compile"):
        ChatTemplate("{% for %}", bos_token="", eos_token="")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "tool", "tool_call_id": "1"},
        {"role": "user", "content": "42", "tool_call_id": "1"},
        {"role": "user", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "assistant", "content": "", "audio": {"id": "x"}},
        {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "f"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": None, "function_call": {"arguments": "{}"}},
    ],
)
def test_messages_it_cannot_read(message: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match=r"messages\[0\]") as caught:
        render("{{ messages }}", messages=[message])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("name", ["messages", "bos_token", "_tick", "not a name"])
def test_kwargs_cannot_replace_what_is_ours(name: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        render("{{ messages }}", chat_template_kwargs={name: 1})
    assert caught.value.param == "chat_template_kwargs"
