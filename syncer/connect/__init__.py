"""Talks to Kafka Connect: reads connector definitions, applies them, and reads their status."""
