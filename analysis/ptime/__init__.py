"""Where P time went: from events to episodes, each with its hold and its harm."""
