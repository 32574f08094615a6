"""The stateless process that does the work: claims units, runs them, gives them back."""
