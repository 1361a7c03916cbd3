"""One optimizer step: the network, its losses, the learning rate's schedule, and the trainer of these.

``model`` is the reference network, ``model_factory`` makes it or one of yours, ``losses`` what is minimized and
measured, ``schedules`` the learning rate as a function of samples seen. Public: ``hexshards.Trainer`` and
``TwoHeadedResNet``.
"""
