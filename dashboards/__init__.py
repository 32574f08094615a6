"""How people watch a fleet."""
