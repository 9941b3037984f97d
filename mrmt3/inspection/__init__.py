"""What training examples hold: statistics and listings."""
