"""Reads and validates the settings: the configuration file, environment variables and command-line options.

`schema.py` declares every setting. `layers.py` merges the sources and remembers the origin of each value. `types.py`
parses quantities such as `8MiB` and `30s`. `dsn.py` takes the password out of PostgreSQL's connection string.
`installed_sinks.py` finds the installed sinks, which declare the settings of their own sections.
"""
