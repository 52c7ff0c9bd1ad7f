"""What nodes tell each other, and what follows from it. Synchronous and pure: events in, effects out; edgekv/net moves the bytes."""
