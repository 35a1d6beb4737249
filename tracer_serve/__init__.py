"""tracer-serve: serve an LLM classification task by a cheap surrogate, where a certificate allows it.

>>> import tracer_serve as ts
>>> task = ts.load("configs/banking.yaml")  # doctest: +SKIP
>>> task.classify(["Where is my card?"])  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer_serve.api.client import AsyncClient, Client
    from tracer_serve.api.local import LocalTask, load, watch
    from tracer_serve.api.results import Classified, Report

__version__ = "0.2.0"
__all__ = ["AsyncClient", "Classified", "Client", "LocalTask", "Report", "load", "watch"]

_MODULES = {"AsyncClient": "client", "Client": "client", "Classified": "results", "Report": "results"}


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, so that ``import tracer_serve`` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module 'tracer_serve' has no attribute {name!r}")
    return getattr(import_module(f"tracer_serve.api.{_MODULES.get(name, 'local')}"), name)
