"""The systems that are measured, a module each, chosen by name.

``prepare(source, folder)`` stores the source's positions the way the system likes best and returns how many it stored.
``batches(folder, batch=..., workers=..., epochs=...)`` opens that and yields ``(board, policy, value)`` batches for so
many epochs, shuffled anew in each, every sample in one random symmetry. Opening is done by the call, so that the time
to the first batch is the iterator's alone. ``NAME.txt`` beside a module lists what its environment needs, pinned.
"""
