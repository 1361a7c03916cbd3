"""One optimizer step: the network, its losses, the learning rate's schedule, and the trainer of these.

``heads`` declares each output of a network with its target, its loss and its metrics; ``losses`` and all that reports
walk them. ``model`` is the reference network, ``model_factory`` makes it or one of yours, ``schedules`` the learning
rate as a function of samples seen. Public: ``hexshards.Trainer`` and ``TwoHeadedResNet``.
"""
