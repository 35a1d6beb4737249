"""Look up components by name: one registry per kind.

A built-in is defined in a file of its name (``components/surrogates/logreg.py``) and imported only when it is used, so
that processes do not load heavy libraries needlessly. Plugins register at import.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tracer_serve.errors import PluginError
from tracer_serve.protocols import Acceptor, Embedder, Redactor, Surrogate, Teacher

C = TypeVar("C")
Built = TypeVar("Built", bound=type)

# Names that people write for a component, where its own is not close enough to be suggested.
_SYNONYMS = {"minilm": "sentence_transformers", "logistic_regression": "logreg", "svm": "ngram_svc", "nearest": "knn"}


class Registry(Generic[C]):
    """Components of one kind.

    Parameters
    ----------
    kind : such as ``surrogate``, as in the YAML and in errors. Built-ins are in the package
        ``tracer_serve.components.surrogates``; other packages use the entry-point group ``tracer_serve.surrogates``
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.package, self.group = f"tracer_serve.components.{kind}s", f"tracer_serve.{kind}s"
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[Built], Built]:
        """Register the decorated class under `name`; a plugin may not take a built-in's name."""

        def keep(cls: Built) -> Built:
            if name in self._builtin_names() and cls.__module__ != f"{self.package}.{name}":
                raise PluginError(f"{self.kind} {name!r} is built in; register {cls.__qualname__} by another name")
            taken = self._classes.get(name)
            if taken is not None and taken.__qualname__ != cls.__qualname__:
                raise PluginError(f"{self.kind} {name!r} is registered twice, by {taken!r} and {cls!r}")
            self._classes[name] = cls
            return cls

        return keep

    def names(self) -> list[str]:
        """Return every name that `build` accepts, sorted."""
        return sorted({*self._classes, *self._builtin_names(), *self._entry_points()})

    def get(self, name: str) -> type:
        """Return the class behind a name.

        Raises
        ------
        PluginError
            If the name is unknown (the error lists the known names and the closest), or a package is missing.
        """
        if name not in self._classes:
            self._import(name)
        if name not in self._classes:
            near = difflib.get_close_matches(name, self.names(), n=1)
            meant = _SYNONYMS.get(name.lower())
            likely = meant if meant in self.names() else next(iter(near), None)
            hint = f" Did you mean {likely!r}?" if likely else ""
            raise PluginError(
                f"there is no {self.kind} {name!r}.{hint} Known: {', '.join(self.names())}."
                " List your own file under `plugins:` in the YAML."
            )
        return self._classes[name]

    def name_of(self, cls: type) -> str:
        """Return the name under which a class is registered.

        Raises
        ------
        PluginError
            If it is not registered.
        """
        for name, known in self._classes.items():
            if known is cls:
                return name
        raise PluginError(f"{cls.__qualname__} is not registered as {self.kind}; decorate it with its registry")

    def build(self, name: str, params: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None) -> C:
        """Build the component; its parameters are checked against its ``__init__``.

        `context` holds values from outside the component's own block, such as a teacher's ``labels``; names that the
        signature does not have are ignored.

        Raises
        ------
        PluginError
            If a parameter is unknown, missing or of the wrong type.
        """
        cls, schema = self.get(name), self.schema(name)
        given = {key: value for key, value in (context or {}).items() if key in schema.model_fields}
        try:
            checked = schema.model_validate({**given, **(params or {})})
        except ValidationError as error:
            raise PluginError(f"{self.kind} {name!r}: {_first_problem(error, schema)}") from None
        component: C = cls(**{field: getattr(checked, field) for field in type(checked).model_fields})
        return component

    def schema(self, name: str) -> type[BaseModel]:
        """Return a pydantic model of the component's parameters, derived from its signature."""
        init = self.get(name).__init__  # type: ignore[misc]  # reading a signature, not calling
        hints = get_type_hints(init, include_extras=True)
        fields: dict[str, Any] = {
            p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
            for p in list(inspect.signature(init).parameters.values())[1:]
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
        return create_model(f"{self.kind}_{name}", __config__=config, **fields)

    def _builtin_names(self) -> set[str]:
        folder = importlib.import_module(self.package)
        return {m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")}

    def _entry_points(self) -> set[str]:
        return {point.name for point in entry_points(group=self.group)}

    def _import(self, name: str) -> None:
        """Import the built-in or the entry point of that name; a missing package is reported as such."""
        try:
            if name in self._builtin_names():
                importlib.import_module(f"{self.package}.{name}")
            else:
                for point in entry_points(group=self.group, name=name):
                    self._classes.setdefault(name, point.load())
        except ModuleNotFoundError as error:
            raise PluginError(
                f"{self.kind} {name!r} needs the package {error.name!r}, which is not installed."
                f" Try: pip install {error.name}"
            ) from error


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    errors = error.errors()  # report a misspelt name before the parameter that is therefore missing
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where, allowed = ".".join(str(part) for part in first["loc"]), ", ".join(model.model_fields) or "none"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, model.model_fields, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"unknown parameter {where!r}.{hint} Allowed: {allowed}"
    if first["type"] == "missing":
        return f"parameter {where!r} is required. Parameters: {allowed}"
    # Without pydantic's second half ("unable to parse ..."), and without the value, which may be a key.
    return f"parameter {where!r}: {first['msg'].split(', unable')[0].replace('Input should ', 'has to ', 1)}"


embedders: Registry[Embedder] = Registry("embedder")
surrogates: Registry[Surrogate] = Registry("surrogate")
acceptors: Registry[Acceptor] = Registry("acceptor")
teachers: Registry[Teacher] = Registry("teacher")
redactors: Registry[Redactor] = Registry("redactor")
