"""Where clicks come from when no shop sends them: files that are replayed, and simulated shoppers."""
