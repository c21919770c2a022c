"""What a loss does."""
