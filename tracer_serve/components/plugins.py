"""Import the plugin files that a YAML lists, once, and identify them by hash."""

import hashlib
import importlib.util
import sys
from pathlib import Path

from tracer_serve.errors import PluginError


def load_plugin(path: Path) -> str:
    """Import a plugin file, which registers its components, and return its sha256.

    Raises
    ------
    PluginError
        If the file is missing or raises while it is imported.
    """
    if not path.is_file():
        raise PluginError(f"plugin file {path} does not exist; paths are relative to the YAML that names them")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"tracer_serve_plugin_{path.stem}_{digest[:8]}"
    if name in sys.modules:
        return digest
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a plugin may raise anything; it is reported with the file's name
        del sys.modules[name]
        raise PluginError(f"plugin file {path} failed to import: {type(error).__name__}: {error}") from error
    return digest
