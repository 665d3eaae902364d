"""Defines all metrics, and configures the log."""
