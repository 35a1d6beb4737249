"""From one text to one decision."""
