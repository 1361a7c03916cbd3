"""``python -m hexshards`` is the command ``hexshards``."""

from hexshards.cli.app import main

if __name__ == "__main__":
    main()
