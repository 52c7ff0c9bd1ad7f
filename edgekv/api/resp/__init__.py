"""The Redis protocol.

A read's way through it: door (bytes to commands), protocol (runs, barrier, flow control), the commands, replies.
"""
