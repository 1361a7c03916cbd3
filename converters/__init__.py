"""Converters, one file per source format. The core finds them through the entry points ``hexshards.sources``."""
