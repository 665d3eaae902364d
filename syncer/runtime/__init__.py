"""Runs the daemon: one supervisor per read model, periodic checks, heartbeats, and the HTTP server."""
