"""Train and score: the contract, data sets, networks, export, and scorers."""
