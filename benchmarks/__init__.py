"""Speed and statistics, measured on generated data of stated size: `make bench`."""
