"""From traces to versions over time: refits, triggers, the gate's state, retention."""
