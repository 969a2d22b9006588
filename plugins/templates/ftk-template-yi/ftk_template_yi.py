"""The Yi families of 01.AI: Yi, and Yi-VL, which sees images."""

import ftk
from ftk_data import TemplateOptions

YI_VL_SYSTEM = (
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. Read all "
    "the images carefully, and respond to the human's questions with informative, helpful, detailed and polite "
    "answers. 这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。仔细阅读所有的图像，"
    "并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。\n\n"
)


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "yi",
        prefix="\n",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        tool="<|im_start|>tool\n{content}<|im_end|>\n",
        generation="<|im_start|>assistant\n",
        assistant="{content}<|im_end|>",
        assistant_end="\n",
        stop=("<|im_end|>",),
        options=TemplateOptions,
        summary="Yi and Yi 1.5",
    )
    # Each turn begins with ###, and an answer ends where the next turn begins: so the marks stand at the ends here, and
    # what a model is stopped at is what its answers were trained with.
    yield ftk.ChatTemplate(
        "yi_vl",
        system="{content}###",
        default_system=YI_VL_SYSTEM,
        user=" Human: {content}\n### Assistant:",
        tool=" Human: {content}\n### Assistant:",
        assistant="{content}\n###",
        stop=("###",),
        tool_format="ftk_data.react:DEFAULT",
        media={"image": "<image>"},
        options=TemplateOptions,
        summary="Yi-VL, with images",
    )
