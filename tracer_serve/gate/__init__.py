"""The gate: certify agreement with the teacher before deployment, and monitor it afterwards."""
