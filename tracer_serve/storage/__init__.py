"""Where a task keeps its traces and versions, and how traces come in."""
