"""The contract of the seams as checks: every built-in passes them, and a plugin that does not is refused by name.

One small function per property; its docstring is the property, its name stands in the error.
"""

from tracer_serve.components.contract.acceptors import check_acceptor
from tracer_serve.components.contract.embedders import check_embedder
from tracer_serve.components.contract.plugins import check_plugins
from tracer_serve.components.contract.surrogates import check_surrogate

__all__ = ["check_acceptor", "check_embedder", "check_plugins", "check_surrogate"]
