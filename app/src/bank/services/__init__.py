"""What the bank does, apart from how it is shown. Nothing here knows about HTTP."""
