"""The web page for people, and the same as JSON for programs; imported only where asked for."""
