"""Where change events and work items come from, and where our own topics are: Kafka."""
