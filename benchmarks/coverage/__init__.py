"""The coverage study in parts: the markets, what is measured on one seed, and the tables."""
