"""The LLaVA families: one way of showing images, and the turns of the language model that each is built on."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

IMAGE = {"image": "<image>"}
VIDEO = {"image": "<image>", "video": "<video>"}

VICUNA = ftk.ChatTemplate(
    "llava_next",
    system="{content}",
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    user="USER: {content}",
    tool="USER: {content}",
    generation=" ASSISTANT:",
    stop=("</s>",),
    tool_format="ftk_data.react:DEFAULT",
    model_types=("llava_next",),
    media=IMAGE,
    options=TemplateOptions,
    summary="LLaVA-NeXT on Vicuna",
)
MISTRAL = ftk.ChatTemplate(
    "llava_next_mistral",
    prefix="{bos}",
    user="[INST] {content}[/INST]",
    tool="[TOOL_RESULTS] {content}[/TOOL_RESULTS]",
    system_in_user="{content}\n\n",
    assistant=" {content}{eos}",
    stop=("</s>",),
    media=IMAGE,
    options=TemplateOptions,
    summary="LLaVA-NeXT on Mistral",
)
CHATML = ftk.ChatTemplate(
    "llava_next_yi",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="<|im_start|>user\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    tool_format="ftk_data.react:DEFAULT",
    media=IMAGE,
    options=TemplateOptions,
    summary="LLaVA-NeXT on Yi",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield replace(
        VICUNA,
        name="llava",
        system="{content} ",
        user="USER: {content} ",
        tool="USER: {content} ",
        generation="ASSISTANT: ",
        assistant="{content} {eos}",
        tool_format=None,
        model_types=("llava",),
        media={"image": "<image> "},
        summary="LLaVA 1.5",
    )
    yield VICUNA
    yield replace(
        VICUNA,
        name="llava_next_video",
        model_types=("llava_next_video",),
        media=VIDEO,
        summary="LLaVA-NeXT-Video on Vicuna",
    )
    yield replace(VICUNA, name="video_llava", model_types=("video_llava",), media=VIDEO, summary="Video-LLaVA")
    yield MISTRAL
    yield replace(MISTRAL, name="llava_next_video_mistral", media=VIDEO, summary="LLaVA-NeXT-Video on Mistral")
    yield CHATML
    yield replace(CHATML, name="llava_next_video_yi", media=VIDEO, summary="LLaVA-NeXT-Video on Yi")
    yield replace(
        CHATML,
        name="llava_next_qwen",
        default_system="You are a helpful assistant.",
        tool="\n<tool_response>\n{content}\n</tool_response>",
        tool_group=("<|im_start|>user", "<|im_end|>\n"),
        tool_format="ftk_data.tools:HERMES",
        summary="LLaVA-NeXT on Qwen 1.5",
    )
    yield ftk.ChatTemplate(
        "llava_next_llama3",
        prefix="{bos}",
        system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
        tool="<|start_header_id|>ipython<|end_header_id|>\n\n{content}<|eot_id|>",
        generation="<|start_header_id|>assistant<|end_header_id|>\n\n",
        assistant="{content}<|eot_id|>",
        stop=("<|eot_id|>", "<|eom_id|>"),
        media=IMAGE,
        options=TemplateOptions,
        summary="LLaVA-NeXT on Llama 3",
    )
