"""The attack in floating point: finds candidates, confirms them a posteriori; shares nothing with the exact path."""
