"""Reads PostgreSQL: catalog, snapshots, publication, slot and WAL positions.

`snapshot_reader.py` implements `ports.Rows`: it renders documents in one repeatable-read snapshot.
"""
