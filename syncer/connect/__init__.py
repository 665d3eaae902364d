"""Talks to Kafka Connect: reads connector definitions, applies them, and reads the state of connectors.

* `definition`: reads a connector's JSON file and fills in its placeholders.
* `client`: calls Kafka Connect's REST interface.
* `lookup`: finds the connector that the configuration names, and opens a client with the configured settings.
"""
