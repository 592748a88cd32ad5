"""Offline: fits what the worker runs and writes the bundle that it loads."""
