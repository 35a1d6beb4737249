"""The YAML of one task as frozen models, a module per section: every field described and bounded, no key unknown."""
