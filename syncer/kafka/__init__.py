"""Implements the ports that Kafka serves: the source of changes, the work topic, dead letters and state.

`consumer.py` reads topics for a lane. `producer.py` writes records and waits for their delivery. `admin.py` creates
and inspects topics and groups. `dead_letters.py` and `state_store.py` keep compacted topics.
"""
