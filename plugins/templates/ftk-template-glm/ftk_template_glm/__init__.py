"""The GLM families of Zhipu: ChatGLM3, GLM-4, GLM-Z1, GLM-4.5 to 4.7, their vision models, and Aeva.

Nothing ends an answer in their conversations: the first token of the next turn does. So these templates have no
``generation`` marks; that token is trained as the end of an answer, the end token of the tokenizer after the last.
"""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_glm.tools import GLM4, GLM4_MOE

CHATGLM3 = ftk.ChatTemplate(
    "chatglm3",
    source="ftk_template_glm:chatglm3.jinja",
    stop=("</s>", "<|user|>", "<|observation|>"),
    model_types=("chatglm",),
    options=TemplateOptions,
    summary="ChatGLM3",
)
GLM = replace(
    CHATGLM3,
    name="glm4",
    source="ftk_template_glm:glm4.jinja",
    stop=("<|endoftext|>", "<|user|>", "<|observation|>"),
    model_types=("glm", "glm4"),
    summary="GLM-4 Chat",
)
REASONING = replace(
    GLM,
    name="glmz1",
    source="ftk_template_glm:glmz1.jinja",
    thinking=("<think>\n", "\n</think>\n\n"),
    model_types=(),
    summary="GLM-Z1: reasoning first",
)
MEDIA = {
    "image": "<|begin_of_image|><|image|><|end_of_image|>",
    "video": "<|begin_of_video|><|video|><|end_of_video|>",
}
SEEING = replace(REASONING, media=MEDIA, stop=(*GLM.stop, "</answer>"))
GLM47 = replace(
    REASONING,
    name="glm4_7",
    source="ftk_template_glm:glm4_7.jinja",
    thinking=("<think>", "</think>"),
    summary="GLM-4.7: reasoning first",
)
AEVA_SYSTEM = (
    "You are an AI assistant named Aeva created by Zongzhi Lou. "
    "Your answer should be friendly, unbiased, faithful, informative and detailed."
)


@ftk.hookimpl
def ftk_chat_templates():
    yield CHATGLM3
    yield GLM
    yield REASONING
    yield replace(
        REASONING,
        name="glm4_moe",
        source="ftk_template_glm:glm4_moe.jinja",
        thinking=("<think>", "</think>"),
        model_types=("glm4_moe",),
        summary="GLM-4.5 and 4.6: reasoning first",
    )
    yield GLM47
    yield replace(GLM47, name="aeva", default_system=AEVA_SYSTEM, summary="Aeva, on GLM-4.7")
    yield replace(SEEING, name="glm4v", model_types=("glm4v",), summary="GLM-4.1V: images, videos, reasoning first")
    yield replace(
        SEEING,
        name="glm4_5v",
        source="ftk_template_glm:glm4_5v.jinja",
        model_types=("glm4v_moe",),
        summary="GLM-4.5V: images, videos, reasoning first",
    )
    yield replace(
        GLM,
        name="glm_ocr",
        source="ftk_template_glm:glm_ocr.jinja",
        media=MEDIA,
        model_types=("glm_ocr",),
        summary="GLM-OCR: images and videos",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield GLM4
    yield GLM4_MOE
