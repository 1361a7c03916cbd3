"""Executors run the same tasks in some order, somewhere; the results do not depend on where.

``engines`` starts one by its name: ``processes`` of this machine, or ``ray_cluster``; ``runner`` is what they have in
common. Private.
"""
