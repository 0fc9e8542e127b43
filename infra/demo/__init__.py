"""The demo: the whole path on one machine, on simulated shoppers or a file of clicks, shown live."""
