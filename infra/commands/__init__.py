"""One module for each group of `headrace` commands; `infra.cli` loads them by name when called."""
