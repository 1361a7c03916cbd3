"""Files that appear whole or not at all, here or behind a URL, with a cache and locks.

``files`` opens and writes files of this machine, ``remote`` and ``cache`` bring those of a URL down, ``locks`` keeps
two processes from one folder. Nothing here knows what is in a file. Private, but for ``files`` in converters.
"""
