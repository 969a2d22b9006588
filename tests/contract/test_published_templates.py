# ruff: noqa: E501 (tables are easier to read in long lines)
"""Every named template against what its family publishes, and the others against LLaMA-Factory's strings.

References: golden/renders.jsonl (published templates as transformers renders them) and
golden/llamafactory_templates.jsonl. This file is the list of all differences; what is not in it is equal byte for byte.
plugins/templates/README.md says the same in words.
"""

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest
from ftk import DataError, Message, ToolCall
from ftk.registry import Registry

pytest.importorskip("ftk_data")

from ftk_data import TemplateOptions, environment
from ftk_data.conversations import UNSET
from ftk_data.environment import RENDER_ERRORS, render_marked
from ftk_data.rendering import declared

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not there")
SPECS = Registry.discover().specs("template")

# Published templates

FAMILIES = {
    "llama2": "llama2", "llama2-default": "llama2", "llama3": "llama3", "llama3.1": "llama3.1", "llama4": "llama4",
    "qwen2.5": "qwen", "qwen3": "qwen3", "qwen3-2507": "qwen3_nothink", "qwen3.5-think": "qwen3_5", "qwen2_vl": "qwen2_vl",
    "qwen2_audio": "qwen2_audio", "mistral-v1": "mistral_v1", "mistral-v3": "mistral", "mistral-7b-v0.3-hf": "mistral_v3_hf",
    "mistral-small-3.2": "mistral_small", "pixtral": "pixtral", "devstral": "devstral", "gemma": "gemma", "gemma3": "gemma3",
    "gemma4": "gemma4", "phi3": "phi", "phi3-small": "phi_small", "phi4": "phi4", "yi": "yi", "chatglm3": "chatglm3",
    "glm4": "glm4", "glm4_moe": "glm4_moe", "baichuan2": "baichuan2", "deepseek-llm": "deepseek", "deepseek-v3": "deepseek3",
    "deepseek-r1": "deepseekr1", "deepseek-r1-distill-qwen": "deepseekr1_distill", "deepseek-coder": "deepseekcoder",
    "minicpm5": "minicpm5", "chatml": "chatml", "vicuna-chujie": "vicuna_lines", "alpaca": "alpaca", "openchat3.5": "openchat",
    "falcon": "falcon", "cohere": "cohere", "exaone4": "exaone4", "gpt_oss": "gpt_oss", "granite3.0": "granite3", "hy3": "hy3",
    "kimi-k2-thinking": "kimi_k2", "lfm2": "lfm2", "lfm2-8b": "lfm2", "mimo_vl": "mimo_vl", "minimax-m1": "minimax1",
    "smollm3": "smollm3", "bailing": "bailing", "internvl3": "intern_vl", "llava-1.5": "llava", "nemotron3-nano": "nemotron3",
}  # fmt: skip
LAYOUT = {"llama2", "phi3-small", "vicuna-chujie", "alpaca"}
"""The stored file has indentation and line ends that its users take out before use; compared is what it is without."""
OWN_SYSTEM = {"alpaca"}
"""LLaMA-Factory's default system text, where the published template has none."""
TELLS = "tells of the tools, calls them and shows results, which the published template leaves out without a word"
CALLS = "writes calls, which the published template leaves out without a word"
REFUSES = "refuses what the published template leaves out without a word"
MORE = "writes what the published template refuses"
ESCAPED = "writes quotes where the published template writes &#34; around parsed arguments"
PRINTED = "joins the texts of a system text in parts, which the published template writes as Python prints a list"
TOOLS, CALLED, MEDIA = r"tool", r"tool_call", r"image|video|audio"
DIFFERENCES = {
    "llama2": [(MORE, CALLED)], "llama2-default": [(MORE, CALLED)], "llama3": [(TELLS, TOOLS)], "llama4": [(REFUSES, "video")],
    "qwen2_vl": [(TELLS, TOOLS)], "qwen2_audio": [(REFUSES, TOOLS)], "mistral-v3": [(ESCAPED, r"tool_call.*\[dict\]")],
    "gemma": [(MORE, r"system|tool_call")], "gemma3": [(REFUSES, "video")], "gemma4": [(PRINTED, "text_then_image_system")],
    "phi3": [(REFUSES, CALLED)], "phi3-small": [(MORE, CALLED)], "phi4": [(CALLS, CALLED)], "chatglm3": [(TELLS, TOOLS)],
    "glm4": [(TELLS, TOOLS)], "baichuan2": [(REFUSES, CALLED)], "deepseek-llm": [(CALLS, CALLED)],
    "deepseek-v3": [(TELLS, TOOLS), (MORE, r"tool_call.*\[dict\]")], "deepseek-r1": [(TELLS, TOOLS), (MORE, r"tool_call.*\[dict\]")],
    "deepseek-r1-distill-qwen": [(TELLS, TOOLS)], "deepseek-coder": [(CALLS, CALLED)], "chatml": [(TELLS, TOOLS)],
    "vicuna-chujie": [(TELLS, TOOLS), (MORE, CALLED)], "alpaca": [(TELLS, TOOLS), (MORE, CALLED)], "openchat3.5": [(TELLS, TOOLS)],
    "falcon": [(REFUSES, CALLED)], "cohere": [(MORE, CALLED)], "gpt_oss": [(REFUSES, "tool_call_parallel")],
    "granite3.0": [(CALLS, CALLED)], "kimi-k2-thinking": [(MORE, CALLED), (REFUSES, "video")],
    "lfm2": [(REFUSES, r"tool_call.*\[str\]"), (CALLS, CALLED)], "lfm2-8b": [(REFUSES, r"tool_call.*\[str\]"), (CALLS, CALLED)],
    "mimo_vl": [(MORE, MEDIA)], "smollm3": [(TELLS, TOOLS)], "internvl3": [(TELLS, TOOLS), (MORE, "video")],
    "llava-1.5": [(CALLS, CALLED), (MORE, "text_then_image_system"), (REFUSES, "video")],
}  # fmt: skip
"""Family → (how ours differs, in which cases)."""


class Tokenizer:
    def __init__(self, bos_token, eos_token):
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.special_tokens_map = {key: value for key, value in tokens.items() if value}

    def get_added_vocab(self):
        return {}


@pytest.fixture(autouse=True)
def _frozen_clock(monkeypatch):
    monkeypatch.setattr(environment, "_strftime_now", lambda form: datetime(2025, 7, 10, 12).strftime(form))


@cache
def cases_of(file, key):
    made = defaultdict(list)
    for line in (GOLDEN / file).open(encoding="utf-8"):
        case = json.loads(line)
        made[case[key]].append(case)
    return made


def rendered(source, case, tokens):
    """What a template's source writes; None where it refuses."""
    variables = {"tools": case["tools"], "documents": None, "add_generation_prompt": case["add_generation_prompt"]}
    try:
        return render_marked(source, case["messages"], **variables, **tokens, **case["template_kwargs"])[0]
    except RENDER_ERRORS:
        return None


def test_every_published_template_is_some_named_one_s():
    families = json.loads((GOLDEN / "families.json").read_text(encoding="utf-8"))
    assert {family["family"] for family in families} == set(FAMILIES)
    assert set(FAMILIES.values()) <= set(SPECS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_named_template_renders_what_its_family_publishes(family):
    cases = cases_of("renders.jsonl", "family")[family]
    tokenizer = Tokenizer(cases[0]["bos_token"], cases[0]["eos_token"])
    spec = SPECS[FAMILIES[family]]
    made = declared(replace(spec, default_system=None) if family in OWN_SYSTEM else spec, tokenizer, TemplateOptions())
    published = (GOLDEN / cases[0]["template_file"]).read_text(encoding="utf-8").replace("    ", "").replace("\n", "")
    counts = Counter()
    for case in cases:
        want = rendered(published, case, made.tokens) if family in LAYOUT else case.get("rendered")
        for source in (made.source, made.jinja()):
            counts[judged(family, case, want, rendered(source, case, made.tokens))] += 1
    assert counts[""] >= 2 * 26 or family in ("gemma",), counts
    unused = {why for why, _ in DIFFERENCES.get(family, ())} - set(counts)
    assert not unused, f"these are no differences any more: {unused}"


def judged(family, case, want, found):
    """Why the texts differ; empty when they are equal. Fails for a difference without a reason."""
    if found == want:
        return ""
    kinds = {MORE} if want is None else {REFUSES} if found is None else {TELLS, CALLS, ESCAPED, PRINTED}
    for why, where in DIFFERENCES.get(family, ()):
        refused = found is None and why in (TELLS, CALLS)  # a second call, for those that make one a turn
        if (why in kinds or refused) and re.search(where, case["case"]):
            return why
    raise AssertionError(f"{case['case']}: {found!r} is not {want!r}")


# LLaMA-Factory's strings, where nothing is published

ENDS = "each answer has a stop token, where the peer's ends with nothing (its efficient_eos puts one into the labels)"
CLOSED = "calls of GLM-4.5 are closed with </tool_call>, as the family publishes them"
PLACED = "the thought stands after the header of the answer, where the peer writes it before"
NO_GAP = "nothing stands in the place of a missing system text before tools, as Qwen3 publishes it"
STRIPPED = "line breaks before the text of an answer go where a thought stands before it, as Qwen3 publishes it"
KEPT = "the thoughts of all steps since the last question are in the prompt and trained, as the family publishes it"
LINE = "a line break stands between a text and the call after it, as Qwen2.5 publishes it"
MARKS = "enable_thinking: false takes the thought out that the data have between the family's own marks"
UNTOLD = "refuses tools, unless tool_format names a dialect"
ALONE = "refuses a thought beside a call, which the family's readers cannot tell from it"
QWEN3 = [(STRIPPED, "whitespace"), (KEPT, "thought_tool"), (NO_GAP, "tool")]
PEER = {
    "aeva": [(CLOSED, "tool_|thought_tool")], "glm4_5v": [(CLOSED, "tool_|thought_tool")], "ernie_vl": [(PLACED, "")],
    "glm_ocr": [(ALONE, "thought_tool")], "keye_vl": QWEN3, "qwen3_omni": QWEN3, "qwen3_vl": QWEN3,
    "kimi_vl": [(STRIPPED, "whitespace"), (KEPT, "thought_tool"), (MARKS, "thought_two_turns")],
    "llava_next_llama3": [(UNTOLD, "tool")], "llava_next_video_mistral": [(UNTOLD, "tool")],
    "llava_next_qwen": [(LINE, "thought_tool")], "moss_vl": [(LINE, "thought_tool")], "qwen2_omni": [(LINE, "thought_tool")],
    "mimo": [(STRIPPED, "whitespace"), (KEPT, "thought_tool")], "mimo_v2": [(STRIPPED, "whitespace"), (KEPT, "thought_tool")],
    "qwen3_omni_nothink": [(LINE, "thought_tool"), (NO_GAP, "tool")], "youtu": [(STRIPPED, "whitespace"), (KEPT, "thought_tool")],
}  # fmt: skip
STOPS = {"hy_dense_1_8b": "<｜hy_place▁holder▁no▁2｜>", "hy_dense_7b": "<|eos|>", "yi_vl": "###"}
"""The stop tokens of ENDS where they are not the tokenizer's."""


def as_ftk(case):
    """The peer's conversation and tools: calls and the thoughts before them taken out of the text."""
    turns = [Message("system", case["system"])] if case["system"] else []
    for one in case["messages"]:
        role, content = one["role"], one["content"]
        if role != "function":
            turns.append(Message({"observation": "tool"}.get(role, role), content))
            continue
        thought = content[: re.search(r"\[?\{", content).start()]
        calls = json.loads(content[len(thought) :])
        inside = re.fullmatch(r"<think>\n(.*?)\n</think>\n\n", thought, re.DOTALL)
        made = tuple(ToolCall(**call) for call in (calls if isinstance(calls, list) else [calls]))
        turns.append(Message("assistant", "" if inside else thought, inside[1] if inside else None, made))
    tools = json.loads(case["tools"] or "[]")
    return turns, tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


@pytest.mark.parametrize(
    "name",
    [name for name in SPECS if name in cases_of("llamafactory_templates.jsonl", "template")] if GOLDEN.exists() else [],
)
def test_where_nothing_is_published_a_row_is_what_llama_factory_writes(name):
    counts = Counter()
    for case in cases_of("llamafactory_templates.jsonl", "template")[name]:
        if "error" in case:  # parallel calls, or tools without roles for them
            continue
        whole = case["method"] == "encode_multiturn" and not case["method_kwargs"]
        made = renderer(name, case["bos_token"], case["eos_token"], whole, case["enable_thinking"])
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        want = "".join(prompt + answer for prompt, answer in pairs)
        try:
            found = "".join(segment.text for segment in made.render(*as_ftk(case))[-1])
        except DataError:
            found = None
        counts[judged_peer(name, case, want, found)] += 1
    assert sum(counts.values()) >= 20
    unused = {why for why, _ in PEER.get(name, ())} - set(counts)
    assert not unused, f"these are no differences any more: {unused}"


@cache
def renderer(name, bos_token, eos_token, whole, thinking):
    """whole: every answer has its thought, as with ``preserve_thinking``."""
    spec = SPECS[name]
    options = TemplateOptions(preserve_thinking=whole and bool(spec.thinking))
    return declared(spec, Tokenizer(bos_token, eos_token), options, thinking if spec.thinking else UNSET)


def judged_peer(name, case, want, found):
    if found == want:
        return ""
    end = STOPS.get(name, case["eos_token"])
    if found is not None and found.replace(end, "") == want.replace(end, ""):
        return ENDS
    for why, where in PEER.get(name, ()):
        if re.search(where, case["case"]) and (found is None) == (why in (UNTOLD, ALONE)):
            return why
    raise AssertionError(f"{case['case']}: {found!r} is not {want!r}")


def test_every_name_of_llama_factory_is_here():
    names = [
        one["template"] for one in json.loads((GOLDEN / "llamafactory_template_meta.json").read_text(encoding="utf-8"))
    ]
    assert len(names) == 124
    assert set(names) <= set(SPECS)
