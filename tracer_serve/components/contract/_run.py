"""Run contract checks in order and report the first that fails."""

import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.errors import PluginError

Case = TypeVar("Case")
Made = TypeVar("Made")
_HERE = Path(__file__).resolve().parents[2]


class BrokenError(Exception):
    """A property does not hold; the message says what was observed."""


def require(holds: object, observed: str) -> None:
    """Raise `BrokenError` if a property does not hold."""
    if not holds:
        raise BrokenError(observed)


def require_array(found: object) -> None:
    """Raise if a value is not a numpy array."""
    require(isinstance(found, np.ndarray), f"it is a {type(found).__name__}, not a numpy array")


def require_close(found: ArrayLike, expected: ArrayLike, within: float, what: str) -> None:
    """Raise if two arrays differ in shape, or by more than `within` in any entry; NaN equals NaN."""
    left, right = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    require(left.shape == right.shape, f"{what}: shape {left.shape} against {right.shape}")
    if not np.allclose(left, right, rtol=0, atol=within, equal_nan=True):
        raise BrokenError(f"{what}: they differ by up to {np.nanmax(np.abs(left - right)):.2g}")


def run(checks: Sequence[Callable[[Case], None]], case: Case, name: str) -> None:
    """Run `checks` on a case of the component `name`, in order.

    Raises
    ------
    PluginError
        With the component, the check, the required property and what was found instead.
    """
    for check in checks:
        try:
            check(case)
        except Exception as error:  # a plugin may raise anything; it is reported with the name of the check
            raised = f"it raised {type(error).__name__}: {error}{_where(error)}"
            shown = str(error) if isinstance(error, BrokenError) else raised
            raise PluginError(
                f"{name} fails the check {check.__name__!r}. Required: {check.__doc__} Found: {shown}."
                " The contract is in tracer_serve/protocols.py"
            ) from error


def _where(error: Exception) -> str:
    """Return the innermost line of the user's own code in a traceback; lines of libraries rarely help."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [one for one in frames if not one.filename.startswith("<") and "site-packages" not in one.filename]
    own = [one for one in foreign if _HERE not in Path(one.filename).parents]
    return f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""


def reloaded(component: Made) -> Made:
    """Save a component as a version does, and load it again."""
    with tempfile.TemporaryDirectory() as folder:
        save_component(component, Path(folder) / "component")
        loaded: Any = load_component(type(component), Path(folder) / "component")
    found: Made = loaded
    return found
