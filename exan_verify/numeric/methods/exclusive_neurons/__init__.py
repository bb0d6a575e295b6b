"""Methods that start from neurons which are active for one sample alone, and the guess who they are."""
