"""What ends with what."""

import subprocess
import sys

FOLLOW = """
import os, sys, time
from tracer_serve.infra.periodic import follow_parent
follow_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", {FOLLOW!r}, str(os.getpid())])
"""


def test_a_process_ends_with_its_parent() -> None:
    """Kill -9 of the parent ends the child, which then closes the pipe that it holds too."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) != parent.pid
        parent.kill()
        parent.communicate(timeout=120)  # the child alone would sleep for ten minutes
