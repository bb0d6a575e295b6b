"""What is attacked: the gradient in coordinates, its ranks, and the walk through the layers."""
