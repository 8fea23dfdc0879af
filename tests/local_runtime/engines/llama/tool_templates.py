"""Chat templates with tools, one for each family: small, with the wire format of the real ones."""

_CHATML = """
{%- if tools %}<|im_start|>system
{{ messages[0].content if messages[0].role == 'system' }}
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% elif m.role != 'system' %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] %}CALL{% endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
BEGIN{% endif %}"""

HERMES = _CHATML.replace(
    "CALL",
    '\\n<tool_call>\\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\\n</tool_call>".replace("\\n", "\n"),
).replace("BEGIN", "")

# Thinks, and can be told not to; thoughts of earlier turns are cut off.
QWEN3 = HERMES.replace(
    "{{ m.content }}\n{%- for call",
    "{{ m.content.split('</think>')[-1].lstrip() }}\n{%- for call",
).replace(
    "{% endif %}",
    "{% endif %}",
)[: -len("{% endif %}")] + (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)

# The prompt opens the thoughts.
DEEPSEEK_R1 = """{{ bos_token }}{% for m in messages %}
{%- if m.role == 'user' %}<User>{{ m.content }}
{%- elif m.role == 'assistant' %}<Assistant>{{ m.content.split('</think>')[-1] }}
{%- else %}{{ m.content }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}<Assistant><think>
{% endif %}"""

QWEN3_CODER = _CHATML.replace(
    "CALL",
    """
<tool_call>
<function={{ call.function.name }}>
{% for key, value in call.function.arguments.items() %}<parameter={{ key }}>
{{ value if value is string else value | tojson }}
</parameter>
{% endfor %}</function>
</tool_call>""",
).replace("BEGIN", "")

FUNCTIONARY = _CHATML.replace(
    "CALL",
    "<function={{ call.function.name }}>{{ call.function.arguments | tojson }}</function>",
).replace("BEGIN", "")

PHI = _CHATML.replace(
    "CALL",
    '<|tool_call|>[{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}]<|/tool_call|>",
).replace("BEGIN", "")

LLAMA3 = """{{ bos_token }}
{%- if tools %}<|start_header_id|>user<|end_header_id|>

Respond with {"name": function name, "parameters": dictionary of argument name and its value}.
{% for tool in tools %}{{ tool | tojson(indent=4) }}
{% endfor %}<|eot_id|>{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ m.content | tojson }}<|eot_id|>
{%- elif m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('only single tool-calls') }}{% endif %}
{%- set call = m.tool_calls[0].function %}<|start_header_id|>assistant<|end_header_id|>

{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot_id|>
{%- else %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content }}<|eot_id|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

_MISTRAL = """{{ bos_token }}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and loop.last %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
[INST]{{ m.content }}[/INST]
{%- elif m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]
{%- elif m.role == 'tool' %}
{%- if m.tool_call_id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}
[TOOL_RESULTS]{{ {"content": m.content, "call_id": m.tool_call_id} | tojson }}[/TOOL_RESULTS]
{%- elif m.tool_calls %}CALLS{{ eos_token }}
{%- else %}{{ m.content }}{{ eos_token }}
{%- endif %}
{%- endfor %}"""

MISTRAL = _MISTRAL.replace(
    "CALLS",
    """[TOOL_CALLS][
{%- for call in m.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}
{{- {"name": call.function.name, "arguments": call.function.arguments, "id": call.id} | tojson }}
{%- if not loop.last %}, {% endif %}
{%- endfor %}]""",
)

MISTRAL_ARGS = _MISTRAL.replace(
    "CALLS",
    """
{%- for call in m.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif -%}
[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}
{%- endfor %}""",
)

_BAR, _LOW = "\uff5c", "\u2581"


def _deepseek(template: str) -> str:
    for words in ("tool calls begin", "tool calls end", "tool call begin", "tool call end"):
        template = template.replace(f"<{words}>", f"<{_BAR}{words.replace(' ', _LOW)}{_BAR}>")
    return template.replace("<tool sep>", f"<{_BAR}tool{_LOW}sep{_BAR}>")


_DEEPSEEK = """{{ bos_token }}
{%- if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}<User>{{ m.content }}
{%- elif m.role == 'tool' %}<Output>{{ m.content }}
{%- elif m.tool_calls %}<Assistant><tool calls begin>
{%- for call in m.tool_calls %}EACH{% endfor %}<tool calls end>{{ eos_token }}
{%- elif m.role == 'assistant' %}<Assistant>{{ m.content }}{{ eos_token }}
{%- else %}{{ m.content }}
{%- endif %}
{%- endfor %}{% if add_generation_prompt %}<Assistant>{% endif %}"""

# This one wants the arguments as text.
DEEPSEEK = _deepseek(
    _DEEPSEEK.replace(
        "EACH",
        "{{ '<tool call begin>function<tool sep>' + call.function.name + '\\n```json\\n' "
        "+ call.function.arguments + '\\n```<tool call end>' }}",
    )
)

DEEPSEEK_31 = _deepseek(
    _DEEPSEEK.replace(
        "EACH",
        "<tool call begin>{{ call.function.name }}<tool sep>"
        "{{ call.function.arguments | tojson }}<tool call end>",
    )
)

HARMONY = """<|start|>system<|message|>Reasoning: {{ reasoning_effort or 'medium' }}<|end|>
{%- if tools %}<|start|>developer<|message|>namespace functions {
{%- for tool in tools %}{{ tool.function | tojson }}{% endfor %}}<|end|>{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|start|>functions.{{ m.name }} to=assistant<|channel|>commentary
{#- #}<|message|>{{ m.content | tojson }}<|end|>
{%- elif m.tool_calls %}
{%- for call in m.tool_calls %}<|start|>assistant to=functions.{{ call.function.name -}}
<|channel|>commentary json<|message|>{{ call.function.arguments | tojson }}<|call|>
{%- endfor %}
{%- elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content -}}
<|end|>
{%- else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>
{%- endif %}
{%- endfor %}
{#- thoughts of earlier turns: <|channel|>analysis<|message|> ... <|end|> #}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

# Knows neither tools nor a system message.
BARE = """{{ bos_token }}{% for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate user/assistant') }}{% endif -%}
[INST] {{ m.content }} [/INST]{% endfor %}"""

FAMILIES = {
    "hermes": HERMES,
    "qwen3-coder": QWEN3_CODER,
    "functionary": FUNCTIONARY,
    "phi": PHI,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "mistral-args": MISTRAL_ARGS,
    "deepseek": DEEPSEEK,
    "deepseek-3.1": DEEPSEEK_31,
    "harmony": HARMONY,
}
