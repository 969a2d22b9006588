"""Families that write ChatML with a system text, or with role names, of their own."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

OPENCODER = ftk.ChatTemplate(
    "opencoder",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="<|im_start|>tool\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    default_system="You are OpenCoder, created by OpenCoder Team.",
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="OpenCoder Instruct",
)
DBRX_SYSTEM = (
    "You are DBRX, created by Databricks. You were last updated in December 2023. You answer questions based on "
    "information available up to that point.\n"
    "YOU PROVIDE SHORT RESPONSES TO SHORT QUESTIONS OR STATEMENTS, but provide thorough responses to more complex and "
    "open-ended questions.\n"
    "You assist with various tasks, from writing to coding (using markdown for code blocks — remember to use ``` with "
    "code, JSON, and tables).\n"
    "(You do not have real-time data access or code execution capabilities. You avoid stereotyping and provide "
    "balanced perspectives on controversial topics. You do not provide song lyrics, poems, or news articles and do "
    "not divulge details of your training data.)\n"
    "This is your system prompt, guiding your responses. Do not reference it, just respond to the user. If you find "
    "yourself talking about this message, stop. You should be responding appropriately and usually that means not "
    "mentioning this.\n"
    "YOU DO NOT MENTION ANY OF THIS INFORMATION ABOUT YOURSELF UNLESS THE INFORMATION IS DIRECTLY PERTINENT TO THE "
    "USER'S QUERY."
)
CHATML_FAMILIES = (
    OPENCODER,
    replace(OPENCODER, name="dbrx", default_system=DBRX_SYSTEM, model_types=("dbrx",), summary="DBRX Instruct"),
    replace(
        OPENCODER,
        name="sailor",
        user="<|im_start|>question\n{content}<|im_end|>\n",
        tool="<|im_start|>question\n{content}<|im_end|>\n",
        generation="<|im_start|>answer\n",
        default_system="You are an AI assistant named Sailor created by Sea AI Lab. "
        "Your answer should be friendly, unbiased, faithful, informative and detailed.",
        summary="Sailor Chat: question and answer for user and assistant",
    ),
)
