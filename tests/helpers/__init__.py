"""What the tests share: small datasets, small runs, small servers, and slow readers with no code of hexshards."""
