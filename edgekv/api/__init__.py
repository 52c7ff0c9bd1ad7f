"""What clients speak: ``resp`` (the Redis protocol, the fast path) and ``http``. Both call node.operations
and hold replies until they are durable.
"""
