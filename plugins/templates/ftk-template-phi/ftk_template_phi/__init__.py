"""The Phi families of Microsoft: Phi 3 and 3.5, Phi 3 Small, Phi 4, Phi 4 Mini."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

PHI = ftk.ChatTemplate(
    "phi",
    prefix="{bos}",
    system="<|system|>\n{content}<|end|>\n",
    user="<|user|>\n{content}<|end|>\n",
    tool="<|user|>\n{content}<|end|>\n",
    generation="<|assistant|>\n",
    assistant="{content}<|end|>",
    assistant_end="\n",
    stop=("<|end|>",),
    source="ftk_template_phi:phi.jinja",
    model_types=("phi3",),
    options=TemplateOptions,
    summary="Phi 3 and 3.5",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield PHI
    yield replace(PHI, name="phi_small", trim=True, source=None, model_types=("phi3small",), summary="Phi 3 Small")
    yield replace(
        PHI,
        name="phi4",
        prefix="",
        system="<|im_start|>system<|im_sep|>{content}<|im_end|>",
        user="<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>",
        tool="<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>",
        generation="",
        assistant="{content}<|im_end|>",
        assistant_end="",
        stop=("<|im_end|>",),
        source=None,
        model_types=(),
        summary="Phi 4",
    )
    yield replace(
        PHI,
        name="phi4_mini",
        prefix="",
        system="<|system|>{content}<|end|>",
        user="<|user|>{content}<|end|>",
        tool="<|user|>{content}<|end|>",
        generation="<|assistant|>",
        assistant_end="",
        source=None,
        model_types=(),
        summary="Phi 4 Mini",
    )
