"""Fuzzers: hostile files, datasets, run folders and servers, each with a seed that repeats it."""
