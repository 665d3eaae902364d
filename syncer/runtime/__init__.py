"""Runs the daemon: one supervisor per read model, periodic checks, and the HTTP server."""
