"""conversion/pickles."""
