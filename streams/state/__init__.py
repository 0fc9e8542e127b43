"""The feature state: what is kept of each shopper, and the laws that make it converge."""
