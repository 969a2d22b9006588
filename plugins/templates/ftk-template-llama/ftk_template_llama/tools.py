"""Tools as the published templates of Llama 3.1 to 3.3 write them: in the first question, one call a turn."""

from ftk_data.tools import ToolFormat

LLAMA3 = ToolFormat(
    "llama3",
    summary="Llama 3.1 to 3.3: one JSON call a turn",
    system=r"""{{- "Environment: ipython\n" + (system or "") }}""",
    user=r"""
    {{- "Given the following functions, please respond with a JSON for a function call with its proper arguments that best answers the given prompt.\n\n" }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\n\n" }}
    {%- for tool in lead.tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- content }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if message.tool_calls | length != 1 %}
        {{- raise_exception("this family makes one call a turn") }}
    {%- endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '{"name": "' + call.name + '", "parameters": ' }}
    {%- if call.arguments is string %}
        {{- call.arguments }}
    {%- else %}
        {{- call.arguments | tojson }}
    {%- endif %}
    {{- "}" }}""",
    result="{{- content | tojson }}",
)
