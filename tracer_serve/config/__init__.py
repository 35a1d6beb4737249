"""The YAML of one task as frozen pydantic models, one module per section; unknown keys are errors."""
