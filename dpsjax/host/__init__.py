"""What a curriculum on the host is made of: batches handed out, rewards, the saved file."""
