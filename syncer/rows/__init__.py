"""The database that says what is true: what its tables are, and what their rows say under one snapshot."""
