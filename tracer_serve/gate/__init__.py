"""The parity gate: certificates before deployment, an e-process after it."""
