"""Pin the packages that a task needs, at the installed versions.

A version is certified with these packages. A newly resolved lock could change its predictions.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tracer_serve.config.load import Task
from tracer_serve.errors import PluginError

_ITSELF = canonicalize_name("tracer-serve")
_BY_SCHEME = {"postgresql": "postgres", "s3": "s3", "gs": "gcs"}
_ON_ONNX = {"sentence_transformers", "encoder"}
_owners = cache(packages_distributions)  # reads the metadata of everything that is installed


def needs(task: Task, extras: Iterable[str] = ()) -> list[str]:
    """Return the requirements of a task: this package with its extras, the encoder's runtime, the plugins' imports.

    Parameters
    ----------
    extras : further extras of tracer-serve, such as ``otel``
    """
    spec = task.spec
    wanted = set(extras)
    types = {component.type for component in (*spec.embedders, *(one.inner for one in spec.surrogates))}
    wanted.update(types & {"xgboost"})
    schemes = {(url or "").split("://")[0].split("+")[0] for url in (spec.traces.url, spec.versions.url)}
    wanted.update(_BY_SCHEME[scheme] for scheme in schemes if scheme in _BY_SCHEME)
    found = [f"{_ITSELF}[{','.join(sorted(wanted))}]" if wanted else _ITSELF]
    if types & _ON_ONNX:
        found += ["onnxruntime", "tokenizers"]  # as the extra onnx-serving
    elif "static" in types:
        found.append("tokenizers")
    return found + sorted({name for plugin in spec.plugins for name in imported_by(task.resolve(plugin))})


def imported_by(plugin: Path) -> Iterator[str]:
    """Yield the distributions that a plugin file imports, except the standard library and this package."""
    for node in ast.walk(ast.parse(plugin.read_bytes(), str(plugin))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"tracer_serve"}:
            yield from _owners().get(top, ())[:1]


def pins(roots: Iterable[str]) -> list[str]:
    """Return ``name==version`` of all direct and indirect requirements, except this package.

    Raises
    ------
    PluginError
        If a requirement is not installed here.

    Examples
    --------
    >>> any(pin.startswith("numpy==") for pin in pins(["tracer-serve"]))
    True
    """
    todo, seen, found = [Requirement(root) for root in roots], set(), {}
    while todo:
        need = todo.pop()
        name = canonicalize_name(need.name)
        if (name, *sorted(need.extras)) in seen:
            continue
        seen.add((name, *sorted(need.extras)))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise PluginError(
                f"the bento needs the package {need.name!r}, which is not installed here. Try: pip install '{need}'"
            ) from None
        found[name] = Version(installed.version).public  # local versions such as torch 2.13.0+cpu are not on PyPI
        for line in installed.requires or ():
            further = Requirement(line)
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in ("", *need.extras)):
                todo.append(further)
    found.pop(_ITSELF, None)
    return [f"{name}=={version}" for name, version in sorted(found.items())]
