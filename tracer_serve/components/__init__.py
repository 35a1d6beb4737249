"""The parts that a task is made of: registries, plugins, and one package per kind of component."""
