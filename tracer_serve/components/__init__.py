"""Components of a task: registries, plugins, and one package per kind of component."""
