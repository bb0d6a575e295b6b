"""The public functions and what they read and write: doors that hold no mathematics."""
