"""Expanded models against the models that they were made from: the same logits, bit by bit.

Where the new blocks stand is checked against the authors' block_expansion.py (a copy behind the last block of each of
``num_expand`` groups; 4 blocks and 2 new ones give 2 and 5), what is zero in them against the paper's section 3.2.
"""

import json

import pytest
import torch
from click.testing import CliRunner
from ftk import ConfigError, ModelError
from ftk.cli import main
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_llama_pro.expanding import expand
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

LLAMA = "ftk://random/llama?num_hidden_layers=4"
needs_freeze = pytest.mark.needs("ftk-freeze")


def test_the_plugin_keeps_the_contract():
    assert check_plugin("llama-pro")


def folder_of(tmp_path, address):
    return Run(plan_in(tmp_path, model_name_or_path=address)).model_path


def called(*words):
    return CliRunner().invoke(main, ["llama-pro", *map(str, words)], catch_exceptions=False)


def expanded(tmp_path, address=LLAMA, count=2):
    folder = tmp_path / "expanded"
    done = called(address, "--num-expand", count, "--output_dir", folder)
    assert done.exit_code == 0, done.output
    return folder


FAMILIES = [
    "llama", "qwen2", "gemma2", "gpt2", "gpt_neox", "falcon", "opt", "phi3", "cohere2", "mamba",
    "mixtral", "qwen2_moe", "gpt_oss", "qwen3_next", "llava",
]  # fmt: skip
"""Names of writers differ (c_proj, dense, fc2, out_proj), as do biases, norms behind them, and experts."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_expanded_model_is_the_same_function_in_any_family(tmp_path, family):
    auto = AutoModelForImageTextToText if family == "llava" else AutoModelForCausalLM
    before = auto.from_pretrained(folder_of(tmp_path, f"ftk://random/{family}")).eval()
    folder = expanded(tmp_path, f"ftk://random/{family}")
    after = auto.from_pretrained(folder).eval()
    ids = torch.randint(5, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(after(ids).logits, before(ids).logits)
    assert after.config.get_text_config().num_hidden_layers == 4
    assert after.num_parameters() > before.num_parameters()
    after.train()(ids, labels=ids).loss.backward()
    matrices = [one for name, one in after.named_parameters() if one.ndim > 1 and not name.endswith("bias")]
    silent = [one for one in matrices if not one.any()]
    assert silent
    assert all(one.grad.abs().max() > 0 for one in silent), "what is zero can learn"
    assert AutoTokenizer.from_pretrained(folder)("hello")["input_ids"]


def test_new_blocks_are_copies_behind_each_group_with_two_matrices_zeroed(tmp_path):
    folder = expanded(tmp_path)
    before = AutoModelForCausalLM.from_pretrained(folder_of(tmp_path, LLAMA))
    after = AutoModelForCausalLM.from_pretrained(folder)
    assert after.config.llama_pro_layers == [2, 5]
    order = [0, 1, 1, 2, 3, 3]
    for place, source in enumerate(order):
        for name, weight in before.model.layers[source].named_parameters():
            zeroed = place in (2, 5) and name in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
            wanted = torch.zeros_like(weight) if zeroed else weight
            assert torch.equal(after.model.layers[place].get_parameter(name), wanted), (place, name)


def test_the_blocks_of_a_model_that_was_expanded_in_memory_know_their_places(tmp_path):
    """Each block writes into the place of a cache that its number names."""
    model = AutoModelForCausalLM.from_pretrained(folder_of(tmp_path, LLAMA)).eval()
    ids = torch.arange(9)[None] + 5
    wanted = model.generate(ids, max_new_tokens=6, do_sample=False)
    expand(model, 2)
    assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False), wanted)


def test_one_broken_copy_is_noticed(tmp_path, monkeypatch):
    """The comparison at the end is what the command's word rests on, so it must be able to fail."""
    import ftk_llama_pro.expanding

    monkeypatch.setattr(ftk_llama_pro.expanding, "silenced", lambda block, calls: __import__("copy").deepcopy(block))
    folder = tmp_path / "expanded"
    done = called(LLAMA, "--num-expand", 2, "--output_dir", folder)
    assert done.exit_code == 2
    assert "LlamaForCausalLM: with new blocks its logits differ by" in done.output
    assert list(tmp_path.iterdir()) == [], "nothing is left"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (LLAMA, "--num-expand", 3, "--output_dir", "OUT"),
            "--num-expand 3: 4 blocks cannot be split into as many groups",
        ),
        ((LLAMA, "--num-expand", 0, "--output_dir", "OUT"), "--num-expand 0: 4 blocks cannot"),
        ((LLAMA, "--num-expand", 2), "output_dir: not set"),
        (("ftk://random/minimax", "--num-expand", 1, "--output_dir", "OUT"), "could not be found"),
        (("ftk://random/deepseek_v3", "--num-expand", 2, "--output_dir", "OUT"), "gives a new block other weights"),
    ],
)
def test_what_cannot_be_expanded_is_said_in_one_line(tmp_path, words, said):
    done = called(*(tmp_path / "out" if word == "OUT" else word for word in words))
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_written_over(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = called(LLAMA, "--num-expand", 2, "--output_dir", tmp_path)
    assert (done.exit_code, "is not empty" in done.output) == (2, True)


# Training


def learning(model):
    return {name for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("finetuning_type", [pytest.param("freeze", marks=needs_freeze), "lora"])
def test_only_the_new_blocks_learn(tmp_path, finetuning_type):
    folder = expanded(tmp_path)
    more = {"freeze_trainable_layers": 2} if finetuning_type == "freeze" else {}
    settings = {
        "model_name_or_path": str(folder), "finetuning_type": finetuning_type, "use_llama_pro": True, "max_steps": 3,
        "template": "chatml", "save_strategy": "steps", "save_steps": 2, **more,
    }  # fmt: skip
    names = learning(Run(plan_in(tmp_path, **settings)).model(trainable=True))
    assert {name.split("layers.")[1].split(".")[0] for name in names} == {"2", "5"}
    finished = run_in(tmp_path, **settings)
    ids = torch.arange(9)[None] + 5
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder),
        open_run("chat", str(finished.folder)).model(trainable=False),
    )
    assert not torch.equal(after(ids).logits, before(ids).logits)
    old = {name: one for name, one in before.state_dict().items() if ".2." not in name and ".5." not in name}
    for name, weight in old.items():
        assert torch.equal(after.state_dict()[name], weight), name
    again = run_in(
        tmp_path, **settings, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(finished.folder / "checkpoint-2"),
    )  # fmt: skip
    found, wanted = ([json.loads(one)["loss"] for one in (folder / "trainer_log.jsonl").read_text().splitlines()]
                     for folder in (again.folder, finished.folder))  # fmt: skip
    assert found[-1] == wanted[-1]


@needs_freeze
def test_new_blocks_of_another_tool_are_counted_off(tmp_path):
    """LLaMA-Factory's rule: of 4 blocks, with freeze_trainable_layers 2, those numbered 1 and 3."""
    settings = {"model_name_or_path": LLAMA, "finetuning_type": "freeze", "use_llama_pro": True}
    names = learning(Run(plan_in(tmp_path, **settings, freeze_trainable_layers=2)).model(trainable=True))
    assert {name.split("layers.")[1].split(".")[0] for name in names} == {"1", "3"}
    with pytest.raises(ModelError, match="4 blocks cannot be split into as many groups"):
        Run(plan_in(tmp_path, **settings, freeze_trainable_layers=3)).model(trainable=True)
    with pytest.raises(ModelError, match="does not say which of its blocks are new"):
        Run(plan_in(tmp_path, **settings)).model(trainable=True)


@needs_freeze
def test_another_number_of_layers_than_there_are_new_blocks_is_refused(tmp_path):
    settings = {"model_name_or_path": str(expanded(tmp_path)), "finetuning_type": "freeze", "use_llama_pro": True}
    with pytest.raises(ModelError, match="freeze_trainable_layers: 1: the model has 2 new blocks"):
        Run(plan_in(tmp_path, **settings, freeze_trainable_layers=1)).model(trainable=True)


def test_full_fine_tuning_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="model_patch:llama-pro and adapter:full exclude each other"):
        plan_in(tmp_path, use_llama_pro=True, finetuning_type="full")


def test_a_model_without_a_stack_of_blocks_is_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder_of(tmp_path, LLAMA))
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="there is no stack of 7 blocks"):
        expand(model, 1)
