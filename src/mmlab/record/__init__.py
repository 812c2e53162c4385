"""Recording: when to connect, hand over, ask and wait (pure), and the rim that does it."""
