"""Run checks one after the other and name the first that fails."""

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
    """A property does not hold; says how it shows."""


def require(holds: object, how_it_shows: str) -> None:
    """Raise where a property does not hold."""
    if not holds:
        raise BrokenError(how_it_shows)


def require_array(found: object) -> None:
    """Raise where what should be a numpy array is none."""
    require(isinstance(found, np.ndarray), f"it is a {type(found).__name__}, not a numpy array")


def require_close(found: ArrayLike, expected: ArrayLike, within: float, what: str) -> None:
    """Raise where two arrays are not of one shape, or differ by more than `within` anywhere; NaN equals NaN."""
    left, right = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    require(left.shape == right.shape, f"{what}: shape {left.shape} against {right.shape}")
    if not np.allclose(left, right, rtol=0, atol=within, equal_nan=True):
        raise BrokenError(f"{what}: they differ by up to {np.nanmax(np.abs(left - right)):.2g}")


def run(checks: Sequence[Callable[[Case], None]], case: Case, name: str) -> None:
    """Run `checks` on a case of the component `name`.

    Raises
    ------
    PluginError
        Naming component, check, property, and how its breach shows.
    """
    for check in checks:
        try:
            check(case)
        except Exception as error:  # whatever a user's class raises is told with the check's name, and ends the load
            raised = f"it raised {type(error).__name__}: {error}{_where(error)}"
            shown = str(error) if isinstance(error, BrokenError) else raised
            raise PluginError(
                f"{name} fails the check {check.__name__!r}. Required: {check.__doc__} Found: {shown}."
                " The contract is in tracer_serve/protocols.py"
            ) from error


def _where(error: Exception) -> str:
    """Return the last line of the user's own that an error went through; libraries' lines tell little."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [one for one in frames if not one.filename.startswith("<") and "site-packages" not in one.filename]
    own = [one for one in foreign if _HERE not in Path(one.filename).parents]
    return f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""


def reloaded(component: Made) -> Made:
    """Write a component as a version would, and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        save_component(component, Path(folder) / "component")
        loaded: Any = load_component(type(component), Path(folder) / "component")
    found: Made = loaded
    return found
