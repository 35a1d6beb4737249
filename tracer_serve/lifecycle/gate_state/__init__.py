"""The gate as a state machine: open, or closed with a reason, an author and a condition that opens it again.

`state` names the states, `requirements` decides which one applies to a version, `closing` and `monitor_record` keep
what all processes share, and `reopening` says when a refit is worth trying. docs/architecture.md has the diagram.
"""
