"""InternLM and the vision models built on it: ChatML after the tokenizer's first token."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

INTERN2 = ftk.ChatTemplate(
    "intern2",
    prefix="{bos}",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="<|im_start|>user\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="InternLM 2 and 3",
)
INTERN_S1 = replace(
    INTERN2,
    name="intern_s1",
    media={"image": "<IMG_CONTEXT>\n", "video": "<video>\n"},
    model_types=("interns1",),
    summary="Intern-S1",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield replace(
        INTERN2,
        default_system="You are an AI assistant whose name is InternLM (书生·浦语).\n"
        "- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory "
        "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
        "- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as "
        "English and 中文.",
        model_types=("internlm2",),
    )
    yield INTERN_S1
    yield replace(
        INTERN_S1,
        name="intern_vl",
        tool="<|im_start|>tool\n{content}<|im_end|>\n",
        model_types=("internvl", "internvl_chat"),
        summary="InternVL 2.5 and 3",
    )
