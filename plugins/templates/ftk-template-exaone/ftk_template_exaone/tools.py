"""Tools and calls as EXAONE 4.0 writes them: Hermes' tags on one line, results as JSON."""

from ftk_data.tools import ToolFormat

EXAONE4 = ToolFormat(
    "exaone4",
    target="ftk_data.tools:read_hermes",
    summary="EXAONE 4.0: JSON between tool_call tags, one call a line",
    system=r"""
    {%- if system %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "# Available Tools\nYou can use none, one, or multiple of the following tools by calling them as functions to help with the user’s query.\nHere are the tools available to you in JSON format within <tool> and </tool> tags:\n" }}
    {%- for tool in tools %}
        {{- "<tool>" + (tool | tojson) + "</tool>\n" }}
    {%- endfor %}
    {{- "\nFor each function call you want to make, return a JSON object with function name and arguments within <tool_call> and </tool_call> tags, like:\n<tool_call>{\"name\": function_1_name, \"arguments\": {argument_1_name: argument_1_value, argument_2_name: argument_2_value}}</tool_call>\n<tool_call>{\"name\": function_2_name, \"arguments\": {...}}</tool_call>\n...\nNote that if no argument name is specified for a tool, you can just print the argument value directly, without the argument name or JSON formatting." }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<tool_call>" in content %}
        {{- raise_exception("the content holds <tool_call>, which starts a call") }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- set given = call.function.arguments %}
        {{- "\n" if content or not loop.first }}
        {{- '<tool_call>{"name": ' ~ call.function.name | tojson ~ ', "arguments": ' }}
        {{- given if given is string else given | tojson }}
        {{- "}</tool_call>" }}
    {%- endfor %}""",
    result=r"""{{- '<tool_result>{"result": ' ~ content | tojson ~ "}</tool_result>" }}""",
)
