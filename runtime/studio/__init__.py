"""The studio: a page on this machine to certify a picture, see its votes arrive, and attack it."""
