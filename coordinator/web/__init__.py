"""The fleet as a web page, for people without a terminal: read-only, and nothing from elsewhere."""
