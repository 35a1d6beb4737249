"""The gate as a state machine: open, or closed with a reason, an author and a condition that opens it again.

`state` defines the states, `requirements` decides which one applies to a version, `closing` and `monitor_record` store
what all processes share, and `reopening` decides when a refit is worth trying. docs/architecture.md has the diagram.
"""
