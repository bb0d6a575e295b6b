"""What commands share: their options, what they print, and the pictures and files beside it."""
