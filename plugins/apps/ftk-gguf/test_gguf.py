"""GGUF files against the model: read by the gguf package and by transformers, which un-permutes and dequantises itself,
and settings against what transformers reads; tokens of SentencePiece against a plain writing of its algorithm."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from ftk import ModelError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_export.command import export_run
from ftk_gguf import FILE, rope, writing
from ftk_gguf.families import FAMILIES
from ftk_gguf.words import PRE, words_of
from gguf import GGUFReader, dequantize
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoConfig, LlamaConfig, PreTrainedTokenizerFast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def exporting(folder, family, *words, **keys):
    keys = {"model_name_or_path": f"ftk://random/{family}", "template": "chatml", **keys}
    (folder / "model.yaml").write_text(json.dumps(keys))
    words = ["--export_dir", str(folder / "out"), "--export_format", "gguf", *words]
    return open_run("export", str(folder / "model.yaml"), words)


def exported(folder, family, *words):
    run = exporting(folder, family, *words)
    return export_run(run, folder / "out"), GGUFReader(folder / "out" / FILE)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("gguf")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"])
def test_every_family_is_read_back_and_says_the_same(tmp_path, family):
    told, _ = exported(tmp_path, family)
    assert "prompts: logits" in told
    if family not in ("gemma",):
        config = AutoConfig.from_pretrained(tmp_path / "out", gguf_file=FILE)
        wanted = open_run("chat", str(tmp_path / "model.yaml")).model_config
        for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "rms_norm_eps",
                    "num_key_value_heads", "vocab_size", "max_position_embeddings"):  # fmt: skip
            assert getattr(config, key) == pytest.approx(getattr(wanted, key)), key
    assert set(FAMILIES) == {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"}


@pytest.mark.parametrize(("kind", "atol"), [("f32", 0), ("f16", 1e-3), ("q8_0", 3e-3)])
def test_every_tensor_is_the_models_but_for_rounding(tmp_path, kind, atol):
    _, file = exported(tmp_path, "llama", "--gguf_type", kind)
    model = open_run("chat", str(tmp_path / "model.yaml")).model(trainable=False)
    state = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    found = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in file.tensors}
    assert len(found) == len(state)
    np.testing.assert_allclose(found["token_embd.weight"], state["model.embed_tokens.weight"], atol=atol)
    np.testing.assert_allclose(found["blk.1.ffn_down.weight"], state["model.layers.1.mlp.down_proj.weight"], atol=atol)
    np.testing.assert_allclose(found["blk.0.attn_v.weight"], state["model.layers.0.self_attn.v_proj.weight"], atol=atol)
    for name, heads in (("q", 4), ("k", 2)):  # row 2 i of a head is its row i, row 2 i + 1 its row i + half
        wanted = state[f"model.layers.0.self_attn.{name}_proj.weight"]
        size = wanted.shape[0] // heads
        order = [h * size + (i // 2) + (i % 2) * (size // 2) for h in range(heads) for i in range(size)]
        np.testing.assert_allclose(found[f"blk.0.attn_{name}.weight"], wanted[order], atol=atol)
    assert {tensor.tensor_type.name for tensor in file.tensors} == {"F32", kind.upper()}


def test_a_wrong_order_of_rows_is_not_let_through(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "in_pairs", lambda weight, heads: weight)
    with pytest.raises(Exception, match="the logits of the export are"):
        exported(tmp_path, "llama")
    assert not (tmp_path / "out").exists()


def test_the_file_says_template_ends_and_tokens(tmp_path):
    _, file = exported(tmp_path, "llama")
    said = {key: field.contents() for key, field in file.fields.items()}
    run = open_run("chat", str(tmp_path / "model.yaml"))
    assert said["general.architecture"] == "llama"
    assert said["tokenizer.ggml.pre"] == "gpt-2"
    assert said["tokenizer.ggml.eos_token_id"] == run.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert said["tokenizer.ggml.add_bos_token"] is False
    assert said["tokenizer.ggml.tokens"] == run.tokenizer.convert_ids_to_tokens(range(2560))
    assert said["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert "<|im_start|>" in said["tokenizer.chat_template"]
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert "FROM ./model.gguf\nTEMPLATE" in modelfile


KINDS = {
    "llama3": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64},
    "longrope": {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0] * 8, "short_factor": [1.0] * 8,
                 "original_max_position_embeddings": 64},
}  # fmt: skip


def test_the_factors_of_llama_3_are_transformers_own():
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters=KINDS["llama3"])
    ((name, found),) = rope.factors(config)
    plain = 1e4 ** -(np.arange(0, 16, 2) / 16)
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    assert name == "rope_freqs.weight"
    np.testing.assert_allclose(plain / found, wanted.numpy(), rtol=1e-5)


def test_what_llama_cpp_cannot_do_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"gguf: mixtral models cannot leave as GGUF\. Can: llama, mistral"):
        export_run(exporting(tmp_path, "mixtral"), tmp_path / "out")
    with pytest.raises(ModelError, match=r"gguf: rope_type dynamic: llama\.cpp has none like it"):
        writing.write_rope(
            Nothing(), LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
        )


class Nothing:
    def __getattr__(self, name):
        return lambda value: None


def spm():
    """A BPE with bytes to fall back to, as Llama 2's and Gemma's tokenizer.json are."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    texts = ["the cat sat on the mat", "the other cat ate that hat", "another rather fat rat"] * 3
    made.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=special, vocab_size=330))
    content = json.loads(made.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are tokens of the model
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def by_scores(words, text):
    """llama.cpp's SentencePiece: the neighbours whose union scores best, again and again; what is no token is bytes."""
    ranks = dict(zip(words.tokens, words.scores, strict=True))
    parts = list((" " + text if words.space_first else text).replace(" ", "▁"))
    while True:
        pairs = [(ranks[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not pairs:
            break
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    ids = []
    for part in parts:
        pieces = [part] if part in ranks else [f"<0x{byte:02X}>" for byte in part.encode()]
        ids += [words.tokens.index(piece) for piece in pieces]
    return ids


def test_scores_and_bytes_give_the_tokens_that_were_trained():
    tokenizer = spm()
    words = words_of(tokenizer, 340)
    assert (words.model, words.pre, words.space_first, len(words.tokens)) == ("llama", "default", True, 340)
    assert words.kinds[:4] == [2, 3, 3, 6]
    assert words.kinds[-1] == 5
    for text in ("the cat", "another hat  that Ünder", "写 the rat"):
        assert by_scores(words, text) == tokenizer(text, add_special_tokens=False).input_ids


def test_a_way_to_cut_text_without_a_name_is_refused():
    run = open_run("chat", None, ["--model_name_or_path", "ftk://random/llama"])
    backend = json.loads(run.tokenizer.backend_tokenizer.to_str())
    for (pattern, ignoring), name in PRE.items():
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        backend["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        backend["model"]["ignore_merges"] = ignoring
        made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)))
        assert words_of(made, 2560).pre == name
    backend["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)))
    with pytest.raises(ModelError, match=r"llama\.cpp has no name for how this tokenizer cuts text"):
        words_of(made, 2560)
    with pytest.raises(ModelError, match=r"the tokenizer has 2560 tokens and the model 100"):
        words_of(run.tokenizer, 100)
