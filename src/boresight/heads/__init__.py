"""What turns features into boxes and scores."""
