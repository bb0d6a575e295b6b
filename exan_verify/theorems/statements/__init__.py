"""One file per theorem or published reading; each defines ``STATEMENTS``."""
