"""The process that decides what work there is and offers it."""
