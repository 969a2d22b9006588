"""The keys that the kernel itself owns: which feature of each kind a run takes, and where it reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk.options import option, options
from ftk.types import Sampling


@options
class SelectionOptions:
    """Which feature of each kind."""

    model_loader: str | None = option(None, help="Which model loader; unset follows the scheme of model_name_or_path.")
    stage: str | None = option(None, help="Which trainer; ftk options stage lists them.")
    finetuning_type: str | None = option(None, help="Which weights learn; ftk options finetuning_type lists the ways.")
    template: str | None = option(None, help="Which chat template; unset is the model's own.")
    quantization_method: str | None = option(None, help="Which quantizer, together with quantization_bit.")
    quantization_bit: int | None = option(
        None, help="Bits of the quantised base model; unset is not quantised.", minimum=1
    )
    infer_backend: str | None = option(None, help="Which inference engine.")
    report_to: tuple[str, ...] = option((), help="Which trackers get the metrics; `none` for no one.")
    launcher: str | None = option(None, help="Which launcher starts the processes; unset is one process.")
    plugins: Mapping[str, Any] | None = option(
        None, help="`{disable: [name, ...]}`: plugins that this run does not import."
    )


@options
class PathOptions:
    """Where a run reads and writes."""

    model_name_or_path: str | None = option(None, help="Folder, hub name or scheme://name of the base model.")
    adapter_name_or_path: tuple[str, ...] = option((), help="Adapters to load: all but the last are merged.")
    dataset: str | list[Any] | Mapping[str, Any] | None = option(
        None, help="Training data: names in dataset_info.json, paths, or inline entries; comma-separated or a list."
    )
    eval_dataset: str | list[Any] | Mapping[str, Any] | None = option(
        None, help="Evaluation data, written like dataset."
    )
    dataset_dir: str | Mapping[str, Any] = option(
        "data",
        help="Folder of dataset_info.json, or its content as a mapping; a source may answer for more, as for ONLINE.",
    )
    output_dir: str | None = option(None, help="The run directory.")
    overwrite_output_dir: bool = option(False, help="Throw away what an earlier run left in output_dir.")
    resume_from_checkpoint: bool | str | None = option(
        None,
        help="A checkpoint folder, or true for the newest complete one; unset resumes an interrupted run by itself.",
    )
    seed: int = option(42, help="Seed of everything random: initialisation, order of rows, dropout.", minimum=0)


@options
class SamplingOptions:
    """How answers are sampled, for every engine."""

    do_sample: bool = option(True, help="Sample; false is greedy.")
    temperature: float = option(0.95, help="Above 1 flattens the distribution, below 1 sharpens it.", minimum=0)
    top_p: float = option(0.7, help="Keep the most likely tokens up to this total probability.", minimum=0, maximum=1)
    top_k: int = option(50, help="Keep this many tokens; 0 keeps all.", minimum=0)
    num_beams: int = option(1, help="Beams; 1 is no beam search.", minimum=1)
    max_length: int = option(1024, help="Most tokens of prompt and answer; max_new_tokens goes first.", minimum=1)
    max_new_tokens: int = option(1024, help="Most tokens of an answer.", minimum=1)
    repetition_penalty: float = option(1.0, help="Above 1 makes repeating less likely.", above=0)
    length_penalty: float = option(1.0, help="Exponent of the length in beam search.")
    skip_special_tokens: bool = option(True, help="Leave special tokens out of the text.")

    def sampling(self, seed: int | None = None) -> Sampling:
        """These options as the value that engines take."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.do_sample and self.temperature > 0,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            num_beams=self.num_beams,
            repetition_penalty=self.repetition_penalty,
            length_penalty=self.length_penalty,
            seed=seed,
            skip_special_tokens=self.skip_special_tokens,
        )


KERNEL_OPTIONS: tuple[type, ...] = (SelectionOptions, PathOptions, SamplingOptions)
