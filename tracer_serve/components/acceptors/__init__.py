"""Acceptors: score how likely the teacher agrees with an answer; one per file."""
