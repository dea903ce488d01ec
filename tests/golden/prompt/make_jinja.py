"""Writes jinja.json: chat templates as transformers renders them (`pip install jinja2==3.1.6`).

    python make_jinja.py > jinja.json

The environment is that of transformers' `_compile_jinja_template`. The templates are made for this test out of the
constructs that published ones use.
"""

import json

import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

BOS, EOS = "<s>", "</s>"


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception

# name, content form, template
TEMPLATES = [
    ("chatml", "text", """{% for message in messages %}
    {%- if loop.first and messages[0]['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}"""),
    ("header", "text", """{% set loop_messages = messages %}
{% for message in loop_messages %}
{% set content = '<|h|>' + message['role'] + '<|/h|>\\n\\n'+ message['content'] | trim + '<|eot|>' %}
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
{{ content }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|h|>assistant<|/h|>\\n\\n' }}{% endif %}"""),
    ("inst", "text", """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'].strip() %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- for m in rest %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' }}{% if loop.first and system is defined %}{{ system ~ '\\n\\n' }}{% endif %}{{ m.content + ' [/INST]' }}
    {%- elif m.role == 'assistant' %}
        {{- ' ' + m['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor -%}
"""),
    ("python", "text", """{%- macro show(m) -%}
{{ m.content.replace('red', 'blue').lstrip().rstrip('.') }}
{%- endmacro -%}
{%- set ns = namespace(n=0, last='') -%}
{%- for m in messages -%}
    {%- if m.content.startswith('skip') -%}{%- continue -%}{%- endif -%}
    {%- set ns.n = ns.n + 1 -%}
    {%- set ns.last = m.get('role', 'none') -%}
    {{ ns.n }}:{{ m.role|upper }}:{{ show(m) }}:{{ m.content.split(' ')[-1] }};
    {%- if m.content.endswith('stop') -%}{%- break -%}{%- endif -%}
{%- endfor -%}
[{{ ns.last }}]{{ {'a': [1, 2.5, none, true, 'x<"é"'], 'b': {}} | tojson }}{{ [{'k': 'v'}] | tojson(indent=2) }}
{%- for k, v in {'x': 1}.items() %} {{ k }}={{ v }}{% endfor %}{{ undefined_thing }}{{ messages[0].nothing }}
{{- '%s-%d' % ('f', 3) if false else 'tail' }}
"""),
    ("list", "list", """{% for message in messages %}
{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}
{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}
{% if message['role'] != 'assistant' %}
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}
{% else %}
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{{ eos_token }}{% endfor %}
{% endif %}{% endfor %}
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""),
    ("list or text", "list", """{%- for m in messages -%}
<{{ m.role }}>
{%- if m.content is string -%}{{ m.content }}
{%- else -%}
    {%- for part in m.content -%}
        {%- if part.type == 'image' -%}<start><image><end>
        {%- elif part['type'] == 'text' -%}{{ part.text | trim }}{%- endif -%}
    {%- endfor -%}
{%- endif -%}
{%- endfor -%}
{{ '<assistant>' if add_generation_prompt else '' }}"""),
]
CONVERSATIONS = [
    [("user", 1, "What is shown?")],
    [("system", 0, " Be brief. "), ("user", 1, "What is red?"), ("assistant", 0, "A bus."), ("user", 0, "skip this")],
    [("user", 2, "Compare <b>&</b> 'these' stop"), ("assistant", 0, "Both é")],
]


def content(form, images, text):
    if form == "list":
        return [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return "<image>" * images + "\n" + text if images else text


def main():
    cases = []
    for name, form, source in TEMPLATES:
        template = environment.from_string(source)
        for turns in CONVERSATIONS:
            messages = [{"role": role, "content": content(form, images, text)} for role, images, text in turns]
            ask = turns[-1][0] == "user"
            try:
                prompt = template.render(
                    messages=messages, add_generation_prompt=ask, bos_token=BOS, eos_token=EOS
                )
            except jinja2.exceptions.TemplateError as error:
                prompt = None
            cases.append({"name": name, "template": source, "turns": turns, "prompt": prompt})
    print("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]")


main()
