"""The console: the web page of the listener, and what monitors read of it."""
