"""Contract checks for components: every built-in passes them, a plugin that fails one is refused.

Each check is one function. Its docstring is the property, and its name appears in the error.
"""

from tracer_serve.components.contract.acceptors import check_acceptor
from tracer_serve.components.contract.embedders import check_embedder
from tracer_serve.components.contract.plugins import check_plugins
from tracer_serve.components.contract.surrogates import check_surrogate

__all__ = ["check_acceptor", "check_embedder", "check_plugins", "check_surrogate"]
