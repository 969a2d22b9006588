"""The Llama families of Meta: Llama 2, Llama 3, and Llama 3.1 to 3.3."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

LLAMA3 = ftk.ChatTemplate(
    "llama3",
    prefix="{bos}",
    system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
    tool="<|start_header_id|>ipython<|end_header_id|>\n\n{content}<|eot_id|>",
    trim=True,
    generation="<|start_header_id|>assistant<|end_header_id|>\n\n",
    assistant="{content}<|eot_id|>",
    stop=("<|eot_id|>", "<|eom_id|>"),
    tool_format="ftk_template_llama.tools:LLAMA3",
    options=TemplateOptions,
    summary="Llama 3",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield replace(LLAMA3, model_types=("llama",))
    yield replace(
        LLAMA3,
        name="llama3.1",
        system_note="Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        summary="Llama 3.1 to 3.3, with the dates that their own template writes",
    )
    yield ftk.ChatTemplate(
        "llama2",
        user="{bos}[INST] {content} [/INST]",
        system_in_user="<<SYS>>\n{content}\n<</SYS>>\n\n",
        trim=True,
        assistant=" {content} {eos}",
        options=TemplateOptions,
        summary="Llama 2 Chat",
    )
