"""Several adapters beside one model, of which one answers at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftk import ConfigError, DataError, ModelError
from ftk_training.quick_imports import quick_imports

from ftk_peft import NamedAdapterOptions
from ftk_peft.applying import find_adapter
from ftk_peft.making import UNFIT, without_bitsandbytes

with quick_imports():
    from peft import PeftModel

if TYPE_CHECKING:
    from ftk.run import Run


class NamedAdapters:
    """The adapters of ``lora_modules`` on a model that answers.

    model: what has to be called from now on. names: what :meth:`use` takes, beside None for the run's own weights.
    Raises ModelError when an adapter cannot be loaded, ConfigError for a name that is taken.
    """

    def __init__(self, model: Any, run: Run) -> None:
        asked = run.options(NamedAdapterOptions).lora_modules or {}
        self.model, self.names = model, tuple(asked)
        self._own = model.active_adapter if isinstance(model, PeftModel) else None
        self._used: str | None = None
        where = run.plan.where("lora_modules")
        if self._own in asked:
            raise ConfigError(f"{where}: {self._own}: is the name of the run's own adapter. Choose another")
        for name, folder in asked.items():
            path = find_adapter(folder, run, "lora_modules")
            try:
                with without_bitsandbytes(self.model):
                    if isinstance(self.model, PeftModel):
                        self.model.load_adapter(path, adapter_name=name, autocast_adapter_dtype=False)
                    else:
                        named = {"adapter_name": name, "autocast_adapter_dtype": False}
                        self.model = PeftModel.from_pretrained(self.model, path, **named)
            except UNFIT as cause:
                said = " ".join(str(cause).split())[:300]
                raise ModelError(f"{where}: {name}: {path}: {said}") from cause
        if self.names:
            self.model.eval()
            self._set(None)

    def use(self, name: str | None) -> None:
        """Let this adapter answer; None is the run's own weights. Raises DataError for a name that is not there."""
        if name == self._used:
            return
        if name is not None and name not in self.names:
            known = ", ".join(self.names) or "none; lora_modules names them"
            raise DataError(f"adapter {name}: is not there. There are {known}")
        self._set(name)

    def _set(self, name: str | None) -> None:
        chosen = self._own if name is None else name
        if chosen is None:
            self.model.base_model.disable_adapter_layers()
        else:
            self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(chosen)
        self._used = name
