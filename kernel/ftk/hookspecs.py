"""The hooks: everything that a plugin can add, each with a whole plugin as its example.

A plugin is a module named by an entry point of group ``ftk``; it implements any of these functions under
``@ftk.hookimpl``. Two sorts:

Declaration hooks (plural nouns) are called once, when plugins are discovered, in every command, so they must be cheap:
they take nothing, import nothing but the standard library and ``ftk``, and yield specs (:mod:`ftk.specs`). A spec
names its code as ``"module:attr"``, imported when a run first uses it; an example that is one file names itself and
imports its back end inside the function.

Event hooks observe a run: :mod:`ftk.events`.

Every example is checked by ``tests/contract/test_hook_examples.py``. ``ftk plugins new KIND NAME`` writes a plugin with
its packaging and tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ftk import specs

hookspec = pluggy.HookspecMarker("ftk")
hookimpl = pluggy.HookimplMarker("ftk")


@hookspec
def ftk_kinds() -> Iterable[specs.Kind]:
    """Kinds of features beside those of this module: an extension point that a plugin opens for others.

    Called once at discovery, before all other hooks, gets nothing, yields :class:`ftk.Kind`: a class of specs, the hook
    that declares them, and how a run chooses them, in the same words as the kernel's own kinds. ``within`` says in
    which runs: those of a kind (``"template"``) or a feature (``"adapter:lora"``). The specs are found with
    ``run.plan.chosen[KIND]`` and ``run.plan.registry.find(KIND, NAME)``. Other plugins import the class of specs from
    this one, so they list it among their dependencies.

    ``ftk_greeter.py``, reached by ``ftk greet NAME --greeting hello``::

        from dataclasses import dataclass
        from typing import ClassVar

        import click
        import ftk

        class Greeting(ftk.Spec):
            kind: ClassVar[str] = "greeting"

        @ftk.options
        class GreetingOptions:
            greeting: str = ftk.option("hello", help="How to greet.")

        def say_hello(name):
            return f"Hello {name}"

        @click.command()
        @click.argument("name")
        def greet(name):
            from ftk.registry import Registry
            click.echo(Registry.discover().find("greeting", "hello").load()(name))

        @ftk.hookimpl
        def ftk_kinds():
            yield ftk.Kind(Greeting, "ftk_greetings", selector="greeting", within="command")

        @ftk.hookimpl
        def ftk_greetings():
            yield Greeting("hello", target="ftk_greeter:say_hello", summary="Hello NAME")

        @ftk.hookimpl
        def ftk_commands():
            yield ftk.Command("greet", target="ftk_greeter:greet", options=GreetingOptions, summary="Greet somebody")
    """
    return ()


@hookspec
def ftk_model_loaders() -> Iterable[specs.ModelLoader]:
    """Ways to get a base model.

    Called once at discovery, gets nothing, yields :class:`ftk.ModelLoader`. Chosen by ``model_loader: NAME`` or by the
    scheme of ``model_name_or_path``. A loader is a target with ``load_tokenizer(run)`` and ``load_model(run)``
    (:class:`ftk.types.Loader`), or only ``locate(name, run) -> folder`` when the default loader can read the files.

    ``ftk_shelf.py``, reached by ``model_name_or_path: shelf://llama/8b``::

        from pathlib import Path

        import ftk

        def locate(name, run):
            folder = Path("/shelf") / name.removeprefix("shelf://")
            if not folder.is_dir():
                raise ftk.ModelError(f"{name}: {folder} is no folder")
            return folder

        @ftk.hookimpl
        def ftk_model_loaders():
            yield ftk.ModelLoader("shelf", schemes=("shelf",), locate="ftk_shelf:locate", summary="Shared models")
    """
    return ()


@hookspec
def ftk_quantizers() -> Iterable[specs.Quantizer]:
    """Ways to load a base model in few bits.

    Called once at discovery, gets nothing, yields :class:`ftk.Quantizer`. Chosen by ``quantization_method: NAME``, the
    default one by ``quantization_bit`` alone, or by a model whose files are quantised already with one of its
    ``methods``. The target ``configure(run)`` returns the quantization config that the model loader hands to
    ``from_pretrained``; a method that transformers does not know registers a quantizer with it
    (``transformers.quantizers.register_quantizer``), much as ``ftk-hqq`` does.

    ``ftk_quanto_small.py``, reached by ``quantization_bit: 2`` and ``quantization_method: quanto-small``::

        import ftk

        def configure(run):
            from transformers import QuantoConfig

            return QuantoConfig(weights=f"int{run.value('quantization_bit')}")

        @ftk.hookimpl
        def ftk_quantizers():
            yield ftk.Quantizer("quanto-small", target="ftk_quanto_small:configure", bits=(2, 4), extra="backend",
                                requires=("optimum.quanto",), excludes=("adapter:full",), summary="Quanto in few bits")
    """
    return ()


@hookspec
def ftk_model_patches() -> Iterable[specs.ModelPatch]:
    """Changes to a tokenizer, to a model's config before it is loaded, or to the model after.

    Called once at discovery, gets nothing, yields :class:`ftk.ModelPatch`. A patch takes part when its ``switch`` is
    on, with ``default=True`` always; several in the YAML's order. ``tokens_target(tokens, run)`` returns the tokenizer
    and processor, ``config_target(config, run)`` the config, ``target(model, run)`` the model, before the adapter.

    ``ftk_attention_dropout.py``, reached by ``attention_dropout: 0.1``::

        import ftk

        @ftk.options
        class DropoutOptions:
            attention_dropout: float | None = ftk.option(None, help="Dropout of attention; unset is off.", minimum=0)

        def set_dropout(config, run):
            config.attention_dropout = run.options(DropoutOptions).attention_dropout
            return config

        @ftk.hookimpl
        def ftk_model_patches():
            yield ftk.ModelPatch("attention-dropout", config_target="ftk_attention_dropout:set_dropout",
                                 options=DropoutOptions, switch="attention_dropout", summary="Dropout in attention")
    """
    return ()


@hookspec
def ftk_adapters() -> Iterable[specs.Adapter]:
    """Which weights learn.

    Called once at discovery, gets nothing, yields :class:`ftk.Adapter`. Chosen by ``finetuning_type: NAME``. The
    target ``apply(model, run, trainable)`` returns the model; afterwards ``requires_grad`` is final. With
    ``trainable=False`` it only loads what ``adapter_name_or_path`` names. ``saves`` says what a run leaves:
    ``adapter`` or the whole ``model``.

    ``ftk_head_only.py``, reached by ``finetuning_type: head-only``::

        import ftk

        def apply(model, run, trainable):
            model.requires_grad_(False)
            model.get_output_embeddings().requires_grad_(trainable)
            return model

        @ftk.hookimpl
        def ftk_adapters():
            yield ftk.Adapter("head-only", target="ftk_head_only:apply", saves="model", summary="Only the output layer")
    """
    return ()


@hookspec
def ftk_optimizers() -> Iterable[specs.Optimizer]:
    """Optimizers beside the trainer's own.

    Called once at discovery, gets nothing, yields :class:`ftk.Optimizer`. The one whose ``switch`` is on is taken, at
    most one. The target ``build(model, run)`` returns a ``torch.optim.Optimizer`` over the parameters that learn.

    ``ftk_adagrad.py``, reached by ``use_adagrad: true``::

        import ftk

        @ftk.options
        class AdagradOptions:
            use_adagrad: bool = ftk.option(False, help="Train with Adagrad.")

        def build(model, run):
            import torch

            learning = [weight for weight in model.parameters() if weight.requires_grad]
            return torch.optim.Adagrad(learning, lr=run.value("learning_rate"))

        @ftk.hookimpl
        def ftk_optimizers():
            yield ftk.Optimizer("adagrad", target="ftk_adagrad:build", options=AdagradOptions, switch="use_adagrad",
                                reads=("learning_rate",), summary="Adagrad (Duchi et al. 2011)")
    """
    return ()


@hookspec
def ftk_dataset_sources() -> Iterable[specs.DatasetSource]:
    """Places that rows come from.

    Called once at discovery, gets nothing, yields :class:`ftk.DatasetSource`. An entry that has the spec's ``field``
    is its own, and so is a data set named ``SCHEME://...``. The target ``open_rows(entry, run)`` returns
    :class:`ftk.types.Rows`: iterable, ``where(index)`` for errors, ``fingerprint()`` that changes with the rows.

    ``ftk_sqlite.py``, reached by ``dataset: sqlite://chats.db`` with a table ``rows``::

        import sqlite3

        import ftk

        class Table:
            def __init__(self, path):
                self.path = path

            def __iter__(self):
                for title, text in sqlite3.connect(self.path).execute("select title, text from rows"):
                    yield {"instruction": title, "output": text}

            def where(self, index):
                return f"{self.path}, row {index + 1}"

            def fingerprint(self):
                return "".join(sqlite3.connect(self.path).iterdump())

        def open_rows(entry, run):
            return Table(entry.fields["sqlite"].removeprefix("sqlite://"))

        @ftk.hookimpl
        def ftk_dataset_sources():
            yield ftk.DatasetSource("sqlite", target="ftk_sqlite:open_rows", field="sqlite", schemes=("sqlite",),
                                    summary="A table of an SQLite file")
    """
    return ()


@hookspec
def ftk_dataset_converters() -> Iterable[specs.DatasetConverter]:
    """Ways to read a row.

    Called once at discovery, gets nothing, yields :class:`ftk.DatasetConverter`. Chosen by the entry's ``formatting``.
    The target ``convert(row, entry)`` returns one of the four examples of :mod:`ftk.types`, or None for a row without
    anything to learn. It is pure: no files, no state, no change to the row; a row that it cannot read raises
    DataError.

    ``ftk_turns.py``, reached by an entry with ``formatting: turns``::

        import ftk

        def convert(row, entry):
            turns = row.get(entry.columns.get("turns", "turns"))
            if not isinstance(turns, list) or not turns:
                raise ftk.DataError("turns: expected a list of texts, the user's first")
            roles = ("user", "assistant")
            return ftk.ChatExample(tuple(ftk.Message(roles[i % 2], str(text)) for i, text in enumerate(turns)))

        @ftk.hookimpl
        def ftk_dataset_converters():
            yield ftk.DatasetConverter("turns", target="ftk_turns:convert", columns=("turns",),
                                       summary="A list of turns, user and assistant by turns")
    """
    return ()


@hookspec
def ftk_chat_templates() -> Iterable[specs.ChatTemplate]:
    """How messages become text.

    Called once at discovery, gets nothing, yields :class:`ftk.ChatTemplate`, which is a value and needs no code.
    Chosen by ``template: NAME``, or by the model's ``model_type`` when the model brings no template. What the
    ``assistant`` format holds up to and with the stop token is trained.

    ``ftk_template_wicket.py``, reached by ``template: wicket``::

        import ftk

        @ftk.hookimpl
        def ftk_chat_templates():
            yield ftk.ChatTemplate(
                "wicket", system="{content} ", user="USER: {content} ", generation="ASSISTANT:",
                assistant="{content}{eos}", default_system="A chat between a curious user and an assistant.",
                summary="Wicket")
    """
    return ()


@hookspec
def ftk_media_processors() -> Iterable[specs.MediaProcessor]:
    """What turns the images, videos and sounds of a message into text and tensors.

    Called once at discovery, gets nothing, yields :class:`ftk.MediaProcessor`. Chosen by the ``model_type`` of the
    model, which it lists under ``model_types``. The target is called with the run and returns an object with
    ``placeholders``, ``expand(media)`` and ``encode(batch, media)`` (:class:`ftk.types.MediaEncoder`).

    ``ftk_media_alt.py``, reached by any model whose config says ``"model_type": "alt"``::

        import ftk

        class Names:
            placeholders = {"image": "<image>"}

            def __init__(self, run):
                pass

            def expand(self, media):
                return [f"[{one.source}]" for one in media]

            def encode(self, batch, media):
                return {}

        @ftk.hookimpl
        def ftk_media_processors():
            yield ftk.MediaProcessor("alt", target="ftk_media_alt:Names", model_types=("alt",),
                                     summary="Tells a text model the names of the files")
    """
    return ()


@hookspec
def ftk_trainers() -> Iterable[specs.Trainer]:
    """Ways to train, and anything else that reads data and a model from one YAML.

    Called once at discovery, gets nothing, yields :class:`ftk.Trainer`. Chosen by ``stage: NAME``. The target
    ``train(run)`` asks the run for what it needs (``run.tokenizer``, ``run.rows("train")``,
    ``run.model(trainable=True)``, ``run.optimizer(model)``), reports steps with ``run.log(step, metrics)`` and returns
    its metrics, name → number. ``uses`` lists the kinds that take part, ``uses_when`` those that do under a condition;
    a key of any other is reported as without effect.

    ``ftk_count.py``, reached by ``stage: count``::

        import ftk

        def train(run):
            rows = tokens = 0
            for dataset in run.datasets("train"):
                for row in dataset.open():
                    example = dataset.convert(row)
                    for message in getattr(example, "messages", ()):
                        tokens += len(run.tokenizer(message.text, add_special_tokens=False)["input_ids"])
                    rows += 1
            return {"rows": rows, "tokens": tokens}

        @ftk.hookimpl
        def ftk_trainers():
            yield ftk.Trainer("count", target="ftk_count:train", uses=("model_loader", "source", "converter"),
                              summary="Counts rows and tokens, trains nothing")
    """
    return ()


@hookspec
def ftk_inference_engines() -> Iterable[specs.Engine]:
    """Ways to get answers from a model.

    Called once at discovery, gets nothing, yields :class:`ftk.Engine`. Chosen by ``infer_backend: NAME``. The target
    ``build(run, model)`` returns an object with ``generate``, ``stream``, ``score`` and ``close``
    (:class:`ftk.types.RunningEngine`). With ``loads_model=False`` it gets None as the model and loads the weights
    itself.

    ``ftk_shell.py``, reached by ``infer_backend: shell``::

        import subprocess

        import ftk

        class Shell:
            def generate(self, prompts, sampling):
                texts = [prompt.messages[-1].text for prompt in prompts]
                said = [subprocess.run(["cat"], input=text, capture_output=True, text=True).stdout for text in texts]
                return [ftk.Reply(text, "stop", num_prompt_tokens=0, num_tokens=0) for text in said]

            def stream(self, prompt, sampling):
                reply = self.generate([prompt], sampling)[0]
                yield reply.text
                return reply

            def score(self, prompts):
                raise ftk.ConfigError("infer_backend: shell cannot score. Take another engine")

            def close(self):
                pass

        def build(run, model):
            return Shell()

        @ftk.hookimpl
        def ftk_inference_engines():
            yield ftk.Engine("shell", target="ftk_shell:build", loads_model=False, summary="Answers of a program")
    """
    return ()


@hookspec
def ftk_trackers() -> Iterable[specs.Tracker]:
    """Places that metrics go to.

    Called once at discovery, gets nothing, yields :class:`ftk.Tracker`. Chosen by ``report_to`` or its own ``switch``,
    any number. The target ``start(run)``, called in the first process only, returns an object with
    ``log(step, metrics)`` and ``close(error)`` (:class:`ftk.types.RunningTracker`); ``log`` must not block. What any of
    them raises is reported without ending the run. ``ftk_training.tracking`` does the waiting in a thread.

    ``ftk_syslog.py``, reached by ``report_to: syslog``::

        import syslog

        import ftk

        class Syslog:
            def log(self, step, metrics):
                syslog.syslog(f"step {step}: {dict(metrics)}")

            def close(self, error):
                syslog.syslog(f"failed: {error}" if error else "finished")

        def start(run):
            return Syslog()

        @ftk.hookimpl
        def ftk_trackers():
            yield ftk.Tracker("syslog", target="ftk_syslog:start", summary="Metrics in the system's log")
    """
    return ()


@hookspec
def ftk_launchers() -> Iterable[specs.Launcher]:
    """Ways to start a run in other processes.

    Called once at discovery, gets nothing, yields :class:`ftk.Launcher`. Chosen by ``launcher: NAME``. The target
    ``launch(run, argv)`` gets the words after ``ftk run``, starts ``python -m ftk.cli run`` with them and
    ``FTK_LAUNCHED=1`` in the environment of each process (else they would launch again), and returns the exit code.

    ``ftk_nice.py``, reached by ``launcher: nice``::

        import os
        import subprocess
        import sys

        import ftk

        def launch(run, argv):
            command = ["nice", sys.executable, "-m", "ftk.cli", "run", *argv]
            return subprocess.run(command, env={**os.environ, "FTK_LAUNCHED": "1"}).returncode

        @ftk.hookimpl
        def ftk_launchers():
            yield ftk.Launcher("nice", target="ftk_nice:launch", summary="One process that gives way to others")
    """
    return ()


@hookspec
def ftk_commands() -> Iterable[specs.Command]:
    """Commands beside ``ftk run``.

    Called once at discovery, gets nothing, yields :class:`ftk.Command`; ``ftk NAME`` calls the target, a click command
    that is imported only then. ``open_run`` gives it the model, template and engine that a YAML or a run directory
    describes; ``uses`` lists the kinds that it asks for. With ``run_flag=True`` it is a flag of ``ftk run`` as well:
    ``ftk run CONFIG --NAME`` calls it with CONFIG and the other words in the place of running.

    ``ftk_tokens.py``, reached by ``ftk tokens config.yaml "some text"``::

        import click

        import ftk
        from ftk.opening import open_run

        @click.command()
        @click.argument("config")
        @click.argument("text")
        def tokens(config, text):
            click.echo(" ".join(open_run("tokens", config).tokenizer.tokenize(text)))

        @ftk.hookimpl
        def ftk_commands():
            yield ftk.Command("tokens", target="ftk_tokens:tokens", uses=("model_loader",), summary="Shows tokens")
    """
    return ()
