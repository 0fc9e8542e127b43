"""The data path: from a click to a recommendation, batch by batch."""
