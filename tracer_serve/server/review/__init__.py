"""The review queue: what surrogate and teacher differ on, judged by a person; results are feedback."""
