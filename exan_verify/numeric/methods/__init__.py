"""The attacks: lift, assign, peel, sample, published, and what they are made of."""
