"""``POST /v1/chat/completions``: this task's calls are answered here, all others by the teacher's endpoint."""
