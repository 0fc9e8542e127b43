"""What a shop asks its warehouse: the questions, their exact meaning, and how answers are shown."""
