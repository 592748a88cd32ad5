"""What monitoring is told: figures for Prometheus, and whether the listener lives and is ready."""
