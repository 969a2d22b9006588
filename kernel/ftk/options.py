"""Options: who owns which key of the flat YAML, what it accepts, and how a value is checked.

An option class is a frozen dataclass made by :func:`options`; its fields are keys of the YAML. Declaring one is cheap:
types are resolved and pydantic is imported only when a value has to be checked.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast, dataclass_transform, overload

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Replaced:
    """A key that is gone, and what stands for it now.

    key: the old name. by: the new one, or None when the setting has no effect any more.
    note: what the user is told. values: old value → new value, where they differ.
    """

    key: str
    by: str | None = None
    note: str = ""
    values: Mapping[Any, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class OptionField:
    """One key: its owner, its type as written, and its limits."""

    key: str
    owner: type
    annotation: Any
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    secret: bool = False
    excludes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def type_text(self) -> str:
        """The type as its author wrote it, for listings."""
        if isinstance(self.annotation, type):
            return self.annotation.__name__
        return str(self.annotation).replace("typing.", "")


@overload
def option(
    default: T,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    secret: bool = False,
    excludes: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
) -> T: ...
@overload
def option(default: None, *, help: str, **limits: Any) -> Any: ...
def option(default: Any = None, *, help: str, **limits: Any) -> Any:
    """Declare one key of an option class.

    minimum, maximum: inclusive bounds; above: exclusive lower bound.
    secret: masked wherever settings are shown or saved.
    excludes, needs: conditions as in :class:`ftk.Spec`, checked when the YAML sets the key to something else than off.
    """
    metadata = {"help": help, **limits}
    if isinstance(default, (list, dict, set)):
        raise TypeError("use a tuple or None as the default of an option, not a mutable value")
    return dataclasses.field(default=default, metadata=metadata)


@overload
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
def options(cls: type[T], /) -> type[T]: ...
@overload
def options(*, replaced: Iterable[Replaced] = ()) -> Callable[[type[T]], type[T]]: ...
def options(cls: type[T] | None = None, /, *, replaced: Iterable[Replaced] = ()) -> Any:
    """Make a class of :func:`option` fields a frozen dataclass that specs can carry.

    A ``list[str]``-like option is written ``tuple[str, ...]``; the YAML may give a list or one comma-separated string.
    ``replaced`` names keys that existed once and what the user should know about each.
    A ``__post_init__`` that raises ValueError refuses combinations of values.
    """

    def decorate(target: type[T]) -> type[T]:
        target.__ftk_fields__ = _fields(target)  # type: ignore[attr-defined]
        target.__ftk_replaced__ = tuple(replaced)  # type: ignore[attr-defined]
        target.__init__ = _complete_and_init  # type: ignore[method-assign]
        return target

    return decorate if cls is None else decorate(cls)


def _fields(target: type) -> dict[str, OptionField]:
    keys = {}
    for key, annotation in target.__annotations__.items():
        field = vars(target).get(key)
        if not isinstance(field, dataclasses.Field) or "help" not in field.metadata:
            raise TypeError(f"{target.__qualname__}.{key}: declare it with ftk.option(default, help=...)")
        keys[key] = OptionField(key, target, annotation, field.default, **field.metadata)
    return keys


def _complete_and_init(self: Any, **values: Any) -> None:
    """The first instance makes the class a dataclass. Until then it is only listed, which needs no compiled methods:
    for the hundreds of keys of an installation that is a third of the time to start."""
    cls = type(self)
    del cls.__init__
    dataclass(frozen=True, kw_only=True)(cls)
    cls.__init__(self, **values)


def fields_of(cls: type) -> Mapping[str, OptionField]:
    """The keys that an option class owns."""
    return cast("Mapping[str, OptionField]", cls.__ftk_fields__)  # type: ignore[attr-defined]


def replaced_by(cls: type) -> tuple[Replaced, ...]:
    """The keys that an option class once had."""
    return cast("tuple[Replaced, ...]", getattr(cls, "__ftk_replaced__", ()))


@cache
def resolved_type(field: OptionField) -> Any:
    """The annotation as a type object; string annotations are evaluated in the module of the owning class."""
    if not isinstance(field.annotation, str):
        return field.annotation
    namespace = vars(sys.modules[field.owner.__module__])
    return eval(field.annotation, dict(namespace))


@cache
def _adapter(field: OptionField) -> Any:
    from typing import Annotated

    from pydantic import BeforeValidator, Field, TypeAdapter

    checked = resolved_type(field)
    if (field.minimum, field.maximum, field.above) != (None, None, None):
        checked = Annotated[checked, Field(ge=field.minimum, le=field.maximum, gt=field.above)]
    if _holds_strings(resolved_type(field)):
        checked = Annotated[checked, BeforeValidator(_split_commas)]
    return TypeAdapter(checked)


def _holds_strings(annotation: Any) -> bool:
    return "tuple[str, ...]" in str(annotation)


def _split_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def check_value(field: OptionField, value: Any) -> Any:
    """``value`` in the option's type, converted where that is safe (``"2e-5"`` to a float).

    Raises ValueError with what is wrong, in words that do not repeat the key.
    """
    from pydantic import ValidationError

    try:
        return _adapter(field).validate_python(value)
    except ValidationError as cause:
        said = dict.fromkeys(_in_words(error) for error in cause.errors(include_url=False))
        raise ValueError(f"{_shown(field, value)}: {'; or '.join(said)}") from cause


def _in_words(error: Mapping[str, Any]) -> str:
    text = str(error["msg"])
    return text[0].lower() + text[1:].removesuffix(", unable to parse string as a number")


def _shown(field: OptionField, value: Any) -> str:
    return "(hidden)" if field.secret else repr(value)


def build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """An instance of an option class from the checked values that it owns; others are left out.

    Raises ValueError when the class refuses the combination.
    """
    return cls(**{key: values[key] for key in fields_of(cls) if key in values})


def json_schema(field: OptionField) -> dict[str, Any]:
    """The JSON Schema of one key."""
    schema: dict[str, Any] = _adapter(field).json_schema()
    if _holds_strings(resolved_type(field)):
        schema = {"anyOf": [schema, {"type": "string", "description": "comma-separated"}]}
    schema["description"] = field.help
    if not field.secret and isinstance(field.default, (str, int, float, bool, type(None))):
        schema["default"] = field.default
    return schema


def is_on(value: Any) -> bool:
    """Whether a switch turns its feature on: anything but unset, false, the empty string and the empty list."""
    return value is not None and value is not False and value not in ("", ())
