"""The smallest site, in a lab of its own beside the first."""
