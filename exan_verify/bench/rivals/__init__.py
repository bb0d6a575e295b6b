"""What the attack is compared with: attacks by others, as their papers describe them."""
