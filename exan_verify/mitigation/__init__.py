"""What to do about a leak: defences by name, and for each what it proves, what it leaves and what it
costs."""
